//! Sizes and durations as people write them: `10GiB`, `90s`, `1h30m`. Pure.

use std::time::Duration;

/// Why something is no size or duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a size.
    #[error("this is no size; write a whole number and a unit: B, KiB, MiB, GiB, TiB (or KB, MB, GB, TB by thousands)")]
    Size,
    /// Not a duration.
    #[error("this is no duration; write whole numbers and units: ms, s, m, h, d, as in `90s` or `1h30m`")]
    Duration,
    /// More than fits.
    #[error("this is too much")]
    TooMuch,
}

/// Bytes.
pub fn size(text: &str) -> Result<u64, QuantityError> {
    let (number, unit) = text.split_at(digits(text));
    let number: u64 = number.parse().map_err(|_| QuantityError::Size)?;
    let unit = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(QuantityError::Size),
    };
    number.checked_mul(unit).ok_or(QuantityError::TooMuch)
}

/// A span of time, at most a hundred years.
pub fn duration(text: &str) -> Result<Duration, QuantityError> {
    const MOST: u64 = 100 * 365 * 86_400_000;
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() || text.is_empty() {
        let (number, after) = rest.split_at(digits(rest));
        let (unit, after) = after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        let number: u64 = number.parse().map_err(|_| QuantityError::Duration)?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(QuantityError::Duration),
        };
        let part = number.checked_mul(millis).ok_or(QuantityError::TooMuch)?;
        total = total.checked_add(part).filter(|total| *total <= MOST).ok_or(QuantityError::TooMuch)?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

fn digits(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        use QuantityError as E;
        for (text, expected) in [
            ("0B", Ok(0)),
            ("512B", Ok(512)),
            ("64MiB", Ok(64 << 20)),
            ("10 GiB", Ok(10 << 30)),
            ("2TiB", Ok(2 << 40)),
            ("3KB", Ok(3000)),
            ("10", Err(E::Size)),
            ("10gib", Err(E::Size)),
            ("GiB", Err(E::Size)),
            ("1.5GiB", Err(E::Size)),
            ("-1B", Err(E::Size)),
            ("", Err(E::Size)),
            ("١B", Err(E::Size)),
            ("99999999TiB", Err(E::TooMuch)),
        ] {
            assert_eq!(size(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations() {
        use QuantityError as E;
        for (text, expected) in [
            ("0s", Ok(0)),
            ("250ms", Ok(250)),
            ("90s", Ok(90_000)),
            ("1h30m", Ok(5_400_000)),
            ("12h", Ok(43_200_000)),
            ("365d", Ok(31_536_000_000)),
            ("", Err(E::Duration)),
            ("12", Err(E::Duration)),
            ("h", Err(E::Duration)),
            ("1h ", Err(E::Duration)),
            ("1 h", Err(E::Duration)),
            ("1H", Err(E::Duration)),
            ("-1s", Err(E::Duration)),
            ("1é", Err(E::Duration)),
            ("40000d", Err(E::TooMuch)),
            ("99999999999999999d", Err(E::TooMuch)),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }
}
