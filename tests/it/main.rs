//! All tests that go through sockets, processes and files, in one binary.

mod crash;
mod handlers;
mod http;
mod load;
mod support;
