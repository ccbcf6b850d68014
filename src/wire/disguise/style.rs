//! What SGR makes of text, as far as it can hide it: concealed, bold, and the two colours (ECMA-48, 8.3.117; ITU-T T.416
//! and xterm's `ctlseqs` for more colours).
//!
//! A terminal's own colours are not known and not judged. The first sixteen are taken for xterm's.

/// How the next character looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    is_concealed: bool,
    is_bold: bool,
    front: Colour,
    back: Colour,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Colour {
    /// The terminal's own.
    #[default]
    Unset,
    Palette(u8),
    Exact([u8; 3]),
}

impl Style {
    /// Whether SGR 8 hides it.
    pub(super) fn is_concealed(&self) -> bool {
        self.is_concealed
    }

    /// Whether it has the colour of what is behind it. Reverse video changes nothing about that.
    pub(super) fn is_same_colour(&self) -> bool {
        let front = match self.front {
            // Bold is bright: bold black on black is a grey that many programs use.
            Colour::Palette(n @ 0..8) if self.is_bold => Colour::Palette(n + 8),
            front => front,
        };
        match (front.exact(), self.back.exact()) {
            (Some(front), Some(back)) => front.iter().zip(back).all(|(a, b)| a.abs_diff(b) <= NOT_SEEN),
            _ => false,
        }
    }

    /// The style after these parameters of an SGR sequence; the same where they are another sequence's.
    pub(super) fn with(mut self, parameters: &[u8]) -> Self {
        if !parameters.iter().all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':')) {
            return self;
        }
        let mut items = parameters.split(|byte| *byte == b';');
        while let Some(item) = items.next() {
            let mut parts = item.split(|byte| *byte == b':').map(number);
            let (code, has_parts) = (parts.next().unwrap_or(0), item.contains(&b':'));
            match code {
                38 | 48 | 58 => {
                    let colour = match has_parts {
                        true => with_colons(&mut parts),
                        false => with_semicolons(&mut items.by_ref().map(number)),
                    };
                    match (code, colour) {
                        (38, Some(colour)) => self.front = colour,
                        (48, Some(colour)) => self.back = colour,
                        _ => {}
                    }
                }
                // A kind of underline, or nothing that is known.
                _ if has_parts => {}
                _ => self.set(code),
            }
        }
        self
    }

    fn set(&mut self, code: u32) {
        // Only called with the ranges below, in which nothing is cut off.
        let nth = |first: u32| Colour::Palette(u8::try_from(code - first).unwrap_or_default());
        match code {
            0 => *self = Self::default(),
            1 => self.is_bold = true,
            22 => self.is_bold = false,
            8 => self.is_concealed = true,
            28 => self.is_concealed = false,
            30..=37 => self.front = nth(30),
            39 => self.front = Colour::Unset,
            40..=47 => self.back = nth(40),
            49 => self.back = Colour::Unset,
            90..=97 => self.front = nth(82),
            100..=107 => self.back = nth(92),
            _ => {}
        }
    }
}

impl Colour {
    fn exact(self) -> Option<[u8; 3]> {
        match self {
            Self::Unset => None,
            Self::Exact(colour) => Some(colour),
            Self::Palette(n @ 232..) => Some([8 + 10 * (n - 232); 3]),
            Self::Palette(n) => FIRST.get(usize::from(n)).copied().or_else(|| {
                let level = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
                let n = n.saturating_sub(16);
                Some([level(n / 36), level(n / 6 % 6), level(n % 6)])
            }),
        }
    }
}

/// After `38;`: `5;n` or `2;r;g;b`. Takes what belongs to it.
fn with_semicolons(numbers: &mut impl Iterator<Item = u32>) -> Option<Colour> {
    match numbers.next()? {
        5 => Some(Colour::Palette(byte(numbers.next())?)),
        2 => {
            // All three are taken also where one is no colour.
            let [r, g, b] = [numbers.next(), numbers.next(), numbers.next()];
            Some(Colour::Exact([byte(r)?, byte(g)?, byte(b)?]))
        }
        _ => None,
    }
}

/// After `38:`: `5:n`, `2:r:g:b`, or `2:space:r:g:b` and more, as the standard has it.
fn with_colons(numbers: &mut impl Iterator<Item = u32>) -> Option<Colour> {
    match numbers.next()? {
        5 => Some(Colour::Palette(byte(numbers.next())?)),
        2 => match [numbers.next(), numbers.next(), numbers.next(), numbers.next()] {
            [r, g, b, None] | [_, r, g, b] => Some(Colour::Exact([byte(r)?, byte(g)?, byte(b)?])),
        },
        _ => None,
    }
}

fn byte(number: Option<u32>) -> Option<u8> {
    u8::try_from(number?).ok()
}

/// A number; nothing is 0.
fn number(text: &[u8]) -> u32 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0u32, |number, digit| number.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
}

/// The first sixteen colours of xterm.
const FIRST: [[u8; 3]; 16] = [
    [0, 0, 0],
    [205, 0, 0],
    [0, 205, 0],
    [205, 205, 0],
    [0, 0, 238],
    [205, 0, 205],
    [0, 205, 205],
    [229, 229, 229],
    [127, 127, 127],
    [255, 0, 0],
    [0, 255, 0],
    [255, 255, 0],
    [92, 92, 255],
    [255, 0, 255],
    [0, 255, 255],
    [255, 255, 255],
];
/// Colours so near in each part cannot be told apart as text.
const NOT_SEEN: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn style(parameters: &str) -> Style {
        Style::default().with(parameters.as_bytes())
    }

    #[test]
    fn one_colour_on_itself_is_found_in_every_form() {
        for same in [
            "30;40",
            "40;30",
            "37;47",
            "97;107",
            "0;1;90;100",
            "31;7;41",
            "38;5;1;41",
            "31;48;5;1",
            "38;5;200;48;5;200",
            "38:5:200;48;5;200",
            "38;2;1;2;3;48;2;1;2;3",
            "38:2:1:2:3;48:2::1:2:3",
            "38:2:0:1:2:3;48:2:5:1:2:3:0:1",
            "38;2;0;0;0;40",
            "38;5;16;40",
            "38;5;231;48;2;255;255;255",
            "38;5;244;48;2;128;128;128",
            "38;2;10;10;10;48;2;4;4;4",
            "030;0040",
            "1;30;100",
            "1;22;30;40",
            "38;5;208;48;2;255;135;0",
            "58;5;3;30;40",
            "58:2::1:1:1;30;40",
            "30;4:3;40",
        ] {
            assert!(style(same).is_same_colour(), "{same}");
        }
    }

    #[test]
    fn others_are_not() {
        for other in [
            "",
            "0",
            "30",
            "40",
            "30;49;40;39",
            "30;41",
            "37;107",
            "1;30;40",
            "90;40",
            "39;49",
            "7",
            "30;40;0",
            "30;40;",
            "38;5;30;48;5;40",
            // What follows is the colour, not codes.
            "38;5;30;40",
            "58;5;30;40",
            "38;2;30;40;8",
            "38:5:30;40",
            "38;5",
            "38;2;1;48;2;1",
            "38;5;300;48;5;300",
            "38;2;20;20;20;48;2;4;4;4",
            "38:2:1:2;48:2:1:2",
            "?30;40",
            ">30;40",
            "30;40 ",
        ] {
            assert!(!style(other).is_same_colour(), "{other}");
        }
    }

    #[test]
    fn concealed_is_8_until_28_or_0() {
        for (text, expected) in [
            ("8", true),
            ("1;31;8", true),
            ("08", true),
            ("8;27", true),
            ("8;28", false),
            ("8;0", false),
            ("8;", false),
            ("8;m", false),
            ("88", false),
            ("38;5;8", false),
            ("48;2;8;8;8", false),
            ("38:5:8", false),
            ("4:8", false),
            ("?8", false),
            ("4294967304", false),
        ] {
            assert_eq!(style(text).is_concealed(), expected, "{text}");
        }
    }
}
