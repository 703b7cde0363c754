//! Which addresses a webhook may connect to: a table, and real calls.

use std::net::IpAddr;

use task_recorder::handler::webhook::{Egress, EgressRule, WebhookSettings};
use task_recorder::handler::{Action, Webhook};
use task_recorder::task::ErrorKind;
use tokio_util::sync::CancellationToken;

use super::webhook::settings;
use super::{assert_failed, handler};
use crate::support::receiver::Receiver;
use crate::support::{task, within};

fn egress(rules: &[&str]) -> Egress {
    Egress::new(rules.iter().map(|rule| rule.parse::<EgressRule>().unwrap()))
}

/// The lists of the table, which name a network, and single addresses that are shunned otherwise.
const LIST: [&str; 4] = ["10.1.0.0/16", "2001:db8::/32", "64:ff9b::/96", "0.0.0.0/0"];
const NAMED: [&str; 4] = ["169.254.169.254", "fd00:ec2::254", "::ffff:100.100.100.200", "2002:7f00:1::"];

/// An address, and whether it is allowed by `any`, `public`, `private`, [`LIST`] and [`NAMED`].
const TABLE: &str = "
    8.8.8.8                                 yes yes no  yes no
    1.1.1.1                                 yes yes no  yes no
    93.184.216.34                           yes yes no  yes no
    100.63.255.255                          yes yes no  yes no
    100.128.0.0                             yes yes no  yes no
    172.15.255.255                          yes yes no  yes no
    172.32.0.0                              yes yes no  yes no
    192.167.255.255                         yes yes no  yes no
    192.169.0.0                             yes yes no  yes no
    223.255.255.255                         yes yes no  yes no
    11.0.0.0                                yes yes no  yes no
    9.255.255.255                           yes yes no  yes no
    126.255.255.255                         yes yes no  yes no
    128.0.0.1                               yes yes no  yes no
    168.63.129.15                           yes yes no  yes no
    127.0.0.1                               yes no  yes yes no
    127.255.255.254                         yes no  yes yes no
    10.0.0.1                                yes no  yes yes no
    10.1.2.3                                yes no  yes yes no
    10.255.255.255                          yes no  yes yes no
    172.16.0.1                              yes no  yes yes no
    172.31.255.255                          yes no  yes yes no
    192.168.0.1                             yes no  yes yes no
    192.168.255.255                         yes no  yes yes no
    100.64.0.1                              yes no  yes yes no
    100.127.255.255                         yes no  yes yes no
    192.0.0.1                               yes no  no  yes no
    192.0.2.1                               yes no  no  yes no
    192.88.99.1                             yes no  no  yes no
    198.18.0.1                              yes no  no  yes no
    198.19.255.255                          yes no  no  yes no
    198.51.100.7                            yes no  no  yes no
    203.0.113.7                             yes no  no  yes no
    0.0.0.0                                 no  no  no  no  no
    0.1.2.3                                 no  no  no  no  no
    169.254.169.254                         no  no  no  no  yes
    169.254.169.253                         no  no  no  no  no
    169.254.170.2                           no  no  no  no  no
    169.254.0.1                             no  no  no  no  no
    100.100.100.200                         no  no  no  no  no
    192.0.0.192                             no  no  no  no  no
    168.63.129.16                           no  no  no  no  no
    224.0.0.1                               no  no  no  no  no
    239.255.255.255                         no  no  no  no  no
    240.0.0.1                               no  no  no  no  no
    255.255.255.255                         no  no  no  no  no
    2606:4700:4700::1111                    yes yes no  no  no
    2a00:1450:4001:80f::200e                yes yes no  no  no
    2001:4860:4860::8888                    yes yes no  no  no
    3ffe::1                                 yes yes no  no  no
    ::1                                     yes no  yes no  no
    fc00::1                                 yes no  yes no  no
    fd12:3456:789a::1                       yes no  yes no  no
    fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff yes no  yes no  no
    2001:db8::1                             yes no  no  yes no
    2001:20::1                              yes no  no  no  no
    3fff::1                                 yes no  no  no  no
    4000::1                                 yes no  no  no  no
    100::1                                  yes no  no  no  no
    5f00::1                                 yes no  no  no  no
    ::                                      no  no  no  no  no
    fe80::1                                 no  no  no  no  no
    fe80::a9fe:a9fe                         no  no  no  no  no
    febf::1                                 no  no  no  no  no
    fec0::1                                 no  no  no  no  no
    ff02::1                                 no  no  no  no  no
    fd00:ec2::254                           no  no  no  no  yes
    fd00:ec2::23                            no  no  no  no  no
    fd20:ce::254                            no  no  no  no  no
    fd00:c1::a9fe:a9fe                      no  no  no  no  no
    fd00:42::42                             no  no  no  no  no
    ::ffff:8.8.8.8                          yes yes no  yes no
    ::ffff:127.0.0.1                        yes no  yes yes no
    ::ffff:10.1.2.3                         yes no  yes yes no
    ::ffff:7f00:1                           yes no  yes yes no
    ::ffff:169.254.169.254                  no  no  no  no  yes
    ::ffff:a9fe:a9fe                        no  no  no  no  yes
    ::ffff:100.100.100.200                  no  no  no  no  yes
    ::ffff:0.0.0.0                          no  no  no  no  no
    ::ffff:0:127.0.0.1                      yes no  yes yes no
    ::ffff:0:169.254.169.254                no  no  no  no  yes
    ::8.8.8.8                               yes yes no  yes no
    ::127.0.0.1                             yes no  yes yes no
    ::169.254.169.254                       no  no  no  no  yes
    ::2                                     no  no  no  no  no
    64:ff9b::8.8.8.8                        yes yes no  yes no
    64:ff9b::127.0.0.1                      yes no  yes yes no
    64:ff9b::10.0.0.1                       yes no  yes yes no
    64:ff9b::169.254.169.254                no  no  no  no  yes
    64:ff9b::a9fe:a9fe                      no  no  no  no  yes
    64:ff9b:1::8.8.8.8                      no  no  no  no  no
    64:ff9b:1:a9fe:a9:fe00::                no  no  no  no  no
    2002:808:808::1                         no  no  no  no  no
    2002:7f00:1::                           no  no  no  no  yes
    2002:a9fe:a9fe::1                       no  no  no  no  no
    2001::1                                 no  no  no  no  no
    2001:0:4136:e378:8000:63bf:5601:5601    no  no  no  no  no
";

#[test]
fn each_address_of_the_table_is_decided_as_it_says_by_each_policy() {
    let policies: [(&str, Egress); 5] = [
        ("any", Egress::default()),
        ("public", egress(&["public"])),
        ("private", egress(&["private"])),
        ("the list", egress(&LIST)),
        ("the named", egress(&NAMED)),
    ];
    let rows: Vec<Vec<&str>> = TABLE
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|row: &Vec<_>| !row.is_empty())
        .collect();
    assert!(rows.len() >= 60, "{}", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let address: IpAddr = row[0].parse().unwrap();
        assert_eq!(row.len(), 1 + policies.len(), "{row:?}");
        for ((name, policy), expected) in policies.iter().zip(&row[1..]) {
            if policy.allows(address) != (*expected == "yes") {
                wrong.push(format!("{address} by {name} is not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_rule_allows_nothing_and_several_allow_what_each_does() {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    assert!(!egress(&[]).allows(address("8.8.8.8")));
    let both = egress(&["public", "10.1.0.0/16"]);
    assert!(both.allows(address("8.8.8.8")) && both.allows(address("10.1.0.1")));
    assert!(!both.allows(address("10.2.0.1")));
    assert!(egress(&["169.254.169.254/32"]).allows(address("169.254.169.254")), "that is the address alone");
    assert!(!egress(&["169.254.169.254/31"]).allows(address("169.254.169.254")));
    for (text, written) in
        [("10.1.2.3/8", "10.0.0.0/8"), ("::1/128", "::1"), ("10.0.0.7", "10.0.0.7"), ("any", "any")]
    {
        assert_eq!(text.parse::<EgressRule>().unwrap().to_string(), written);
    }
    for text in ["", "Any", "internet", "10.0.0.0/33", "10.0.0", "0x7f.1", "10.0.0.0/-1", "a.example"] {
        assert!(text.parse::<EgressRule>().is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_call_that_is_not_allowed_fails_without_a_connection() {
    let receiver = Receiver::start().await;
    let port = receiver.address().port();
    let call = async |host: &str, rules: &[&str]| {
        let egress = egress(rules);
        let webhook = Webhook::new(WebhookSettings { egress, ..settings(&format!("http://{host}:{port}/")) });
        let handler = handler(Action::Webhook(webhook));
        within("the call", handler.run(&task("t", None, ""), 1, &CancellationToken::new())).await
    };
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"] {
        for rules in [&["public"][..], &["10.0.0.0/8"], &["127.0.0.2"]] {
            let outcome = call(host, rules).await;
            assert_failed(&outcome, ErrorKind::Egress, false, "which `egress` does not allow");
            assert!(!outcome.may_be_retried(true), "{host} {rules:?}");
        }
    }
    for host in ["169.254.169.254", "0.0.0.0", "[fe80::1]", "[64:ff9b::a9fe:a9fe]", "[::]", "224.0.0.1"] {
        assert_failed(&call(host, &["any"]).await, ErrorKind::Egress, false, "is at ");
    }
    assert_eq!(receiver.connections(), 0);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        for rules in [&["any"][..], &["private"], &["127.0.0.0/8"], &["8.8.8.8", "127.0.0.1"]] {
            assert_eq!(call(host, rules).await.result, Ok(()), "{host} {rules:?}");
        }
    }
    assert_eq!(receiver.calls().len(), 12);
}
