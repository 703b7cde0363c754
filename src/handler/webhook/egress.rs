//! Which addresses a webhook may connect to.
//!
//! Invariant: an address is judged in the form in which it is connected to, and by the IPv4 address that it carries, if
//! it carries one (tests/it/handlers/egress.rs).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What a webhook may connect to: an address that any of the rules allows. An address that no webhook should reach
/// (metadata of clouds, the link-local range, what is no address of a host) takes a rule that names it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress(Vec<EgressRule>);

/// A part of what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressRule {
    /// Any address.
    Any,
    /// What is reached over the internet.
    Public,
    /// This machine and private networks.
    Private,
    /// This network, or a single address.
    Network(IpNet),
}

/// A text that is no [`EgressRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network is such as 10.0.0.0/8 or fd12:3456::/32, an address such as 10.1.2.3")]
pub struct InvalidRule;

impl Default for Egress {
    fn default() -> Self {
        Self(vec![EgressRule::Any])
    }
}

impl Egress {
    /// What any of these allows; nothing, where there are none.
    pub fn new(rules: impl IntoIterator<Item = EgressRule>) -> Self {
        Self(rules.into_iter().collect())
    }

    /// What it is made of.
    #[must_use]
    pub fn rules(&self) -> &[EgressRule] {
        &self.0
    }

    /// Whether a connection to this address may be made.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        // The address alone, as it was written, or as what it carries.
        let is_named = |address: IpAddr| self.0.contains(&EgressRule::Network(address.into()));
        if is_named(address) {
            return true;
        }
        let Some(address) = carried(address) else { return false };
        let is_allowed = |rule: &EgressRule| match rule {
            EgressRule::Any => true,
            EgressRule::Public => !is_among(address, &PRIVATE) && is_public(address),
            EgressRule::Private => is_among(address, &PRIVATE),
            EgressRule::Network(network) => network.contains(&address),
        };
        is_named(address) || !is_among(address, &SHUNNED) && self.0.iter().any(is_allowed)
    }
}

/// The address itself, or the IPv4 address within it. None where what it leads to cannot be told: such forms are of
/// no use to a webhook.
fn carried(address: IpAddr) -> Option<IpAddr> {
    let v6 = match address {
        IpAddr::V6(v6) if !v6.is_loopback() => v6,
        _ => return Some(address),
    };
    if is_among(address, &UNTOLD) {
        return None;
    }
    Some(if is_among(address, &IPV4_AT_THE_END) {
        let [.., a, b, c, d] = v6.octets();
        Ipv4Addr::new(a, b, c, d).into()
    } else {
        address
    })
}

fn is_public(address: IpAddr) -> bool {
    let is_global = match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(_) => is_among(address, &[GLOBAL_UNICAST]),
    };
    is_global && !is_among(address, &RESERVED)
}

fn is_among(address: IpAddr, networks: &[IpNet]) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(segments: [u16; 8], prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_segments(segments), prefix))
}

/// Loopback, RFC 1918, shared address space (RFC 6598), unique local addresses (RFC 4193).
const PRIVATE: [IpNet; 7] = [
    v4(127, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    v4(100, 64, 0, 0, 10),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
];

/// What no rule but its own address allows: where clouds keep credentials and commands for their machines, link-local
/// addresses, and what is no address of one host (0.0.0.0 reaches the loopback).
const SHUNNED: [IpNet; 14] = [
    // This network, link-local (169.254.169.254 with most clouds), multicast, reserved and broadcast.
    v4(0, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
    // Metadata elsewhere: Alibaba Cloud, Oracle Cloud, the host of a machine in Azure.
    v4(100, 100, 100, 200, 32),
    v4(192, 0, 0, 192, 32),
    v4(168, 63, 129, 16, 32),
    // Link-local, site-local, multicast.
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    // Metadata over IPv6: AWS with its neighbours, Google Cloud, Oracle Cloud, Scaleway.
    v6([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0], 32),
    v6([0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254], 128),
    v6([0xfd00, 0x00c1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128),
    v6([0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042], 128),
];

/// What is unicast and outside of [`PRIVATE`], but is not reached over the internet: documentation, benchmarks, protocol
/// assignments, the relays of 6to4.
const RESERVED: [IpNet; 9] = [
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

const GLOBAL_UNICAST: IpNet = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// IPv4-compatible, IPv4-mapped, IPv4-translated (RFC 7915), and NAT64 by its well-known prefix (RFC 6052).
const IPV4_AT_THE_END: [IpNet; 4] = [
    v6([0; 8], 96),
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96),
    v6([0x0064, 0xff9b, 0, 0, 0, 0, 0, 0], 96),
];

/// Teredo, 6to4, and NAT64 by a prefix of the network's own, whose IPv4 address stands who knows where.
const UNTOLD: [IpNet; 3] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    v6([0x0064, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
];

impl FromStr for EgressRule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        match text {
            "any" => Ok(Self::Any),
            "public" => Ok(Self::Public),
            "private" => Ok(Self::Private),
            _ => {
                let address = |_no_network| text.parse::<IpAddr>().map(IpNet::from);
                let network = text.parse::<IpNet>().or_else(address).map_err(|_invalid| InvalidRule)?;
                Ok(Self::Network(network.trunc()))
            }
        }
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Public => f.write_str("public"),
            Self::Private => f.write_str("private"),
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                write!(f, "{}", network.addr())
            }
            Self::Network(network) => write!(f, "{network}"),
        }
    }
}
