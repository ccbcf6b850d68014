//! Which addresses count as one, where something is shared out by address. Plain values in, plain values out.

use std::net::{IpAddr, Ipv6Addr};

/// Whom an address stands for: of IPv6 the /64, which is what one customer gets (RFC 6177), and all of whose addresses
/// they have at hand. An IPv4 address counts alone, also where it is written as IPv6 (RFC 4291 section 2.5.5.2).
pub fn customer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_customer_is_one() {
        let of = |text: &str| customer(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2:3::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
