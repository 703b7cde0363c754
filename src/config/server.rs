//! `[server]`: how the service listens, and how long it waits.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use super::kind::{Size, Switch, Text, Time, Whole};
use super::policy::StartsPerTime;
use super::reader::Section;
use super::tokens::HostNames;
use super::{SHORTEST, belongs_elsewhere};
use crate::task::Rate;

/// Where it listens unless it is told otherwise.
pub(super) const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));
pub(super) const ADDRESS: Text<SocketAddr> =
    Text::new("an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"");
const AUTH_FAILURES: Rate = Rate { starts: 10, per: Duration::from_mins(1) };

/// How the service listens, and how long it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where it listens; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Most connections at once; a further one takes the place of one that waits for a request, or waits itself.
    pub connections_max: usize,
    /// On how many threads requests are answered and handlers called.
    pub threads: usize,
    /// How long the head of a request may take, the idle time before it included.
    pub header_timeout: Duration,
    /// The largest head of a request, in bytes.
    pub head_max: u64,
    /// How long the body of a request may take.
    pub body_timeout: Duration,
    /// Most bytes that are held of bodies that are arriving, over all requests.
    pub bodies_max: u64,
    /// How long a client may take nothing of its answer.
    pub write_timeout: Duration,
    /// How much of an answer the system keeps for a client that is behind, in bytes.
    pub send_buffer: u64,
    /// The longest time that a request can ask to wait for an outcome.
    pub wait_max: Duration,
    /// How long running work may go on once the service is told to stop.
    pub grace: Duration,
    /// Whether it may listen where other machines reach it, and have no tokens.
    pub allow_anonymous: bool,
    /// By which names it is called, besides those of the loopback.
    pub hosts: Vec<String>,
    /// How often each address may fail with a token.
    pub auth_failures: Rate,
}

impl ServerConfig {
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let hour = Time(SHORTEST..=Duration::from_hours(1));
        let day = Time(SHORTEST..=Duration::from_hours(24));
        let config = Self {
            listen: section.get("listen", LISTEN, &ADDRESS),
            connections_max: section.get("connections_max", 10_000, &Whole(1..=1_000_000)),
            threads: section.get("threads", threads_by_default(), &Whole(1..=1_024)),
            header_timeout: section.get("header_timeout", Duration::from_secs(30), &hour),
            head_max: section.get("head_max", 32 << 10, &Size(1 << 10..=64 << 10)),
            body_timeout: section.get("body_timeout", Duration::from_secs(30), &hour),
            bodies_max: section.get("bodies_max", 256 << 20, &Size(1 << 20..=1 << 40)),
            write_timeout: section.get("write_timeout", Duration::from_mins(2), &hour),
            send_buffer: section.get("send_buffer", 128 << 10, &Size(4 << 10..=64 << 20)),
            wait_max: section.get("wait_max", Duration::from_mins(5), &day),
            grace: section.get("grace", Duration::from_secs(20), &day),
            allow_anonymous: section.get("allow_anonymous", false, &Switch),
            hosts: section.get("hosts", Vec::new(), &HostNames),
            auth_failures: section.get("auth_failures", AUTH_FAILURES, &StartsPerTime),
        };
        section.finish(|key| belongs_elsewhere("server", key));
        config
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }
}

/// One core is left to the thread of the store that writes, for which every answer to a launch waits.
fn threads_by_default() -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (cores - 1).max(1)
}
