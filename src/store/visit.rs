//! Where somebody was last.

use std::net::IpAddr;

use crate::geo::Place;

/// From where somebody came last, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastVisit {
    /// The address.
    pub client_ip: IpAddr,
    /// Where that was.
    pub place: Place,
    /// The login at the upstream.
    pub ssh_user: Option<String>,
}
