//! Webhooks over TLS: whom they trust, as whom they present themselves, and which HTTP they speak.

use task_recorder::handler::webhook::{Authorities, CertificateChain, PrivateKey, Tls, WebhookSettings};
use task_recorder::handler::{Action, Handler, Webhook};
use task_recorder::task::{ErrorKind, Outcome};
use tokio_util::sync::CancellationToken;

use super::webhook::settings;
use super::{assert_failed, handler, output};
use crate::support::tls::{Authority, Offer, Pems, TlsReceiver};
use crate::support::{task, within};

/// A webhook to this receiver that trusts this authority, and presents this certificate.
fn webhook(receiver: &TlsReceiver, trusted: Option<&Authority>, identity: Option<&Pems>) -> Handler {
    let authorities = trusted.map(|authority| Authorities::from_pem(authority.pem.as_bytes()).unwrap());
    let identity = identity.map(|pems| {
        let chain = CertificateChain::from_pem(pems.certificate.as_bytes()).unwrap();
        (chain, PrivateKey::from_pem(pems.key.as_bytes()).unwrap())
    });
    let identity = identity.as_ref().map(|(chain, key)| (chain, key));
    let tls = Tls::new(authorities.as_ref(), identity).unwrap();
    handler(Action::Webhook(Webhook::new(WebhookSettings { tls, ..settings(&receiver.url("/in")) })))
}

async fn call(handler: &Handler) -> Outcome {
    within("the call", handler.run(&task("t", None, "in"), 1, &CancellationToken::new())).await
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered_and_http_1_where_it_is_not() {
    let authority = Authority::new();
    let pems = authority.issue("localhost");
    for (offer, version) in [
        (Offer::Both, "HTTP/2.0"),
        (Offer::Http2, "HTTP/2.0"),
        (Offer::Http1, "HTTP/1.1"),
        (Offer::Nothing, "HTTP/1.1"),
    ] {
        let receiver = TlsReceiver::start(&pems, offer, None).await;
        let handler = webhook(&receiver, Some(&authority), None);
        for _ in 0..3 {
            let outcome = call(&handler).await;
            assert_eq!((outcome.result.clone(), output(&outcome).as_str()), (Ok(()), "in"), "{offer:?}");
        }
        assert_eq!(receiver.versions(), [version; 3], "{offer:?}");
        assert_eq!(receiver.connections(), 1, "{offer:?}: it is kept for the next call");
    }
}

#[tokio::test]
async fn who_cannot_be_trusted_gets_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (what, pems, trusted) in [
        ("an unknown authority", authority.issue("localhost"), Some(&other)),
        ("an authority that browsers do not trust", authority.issue("localhost"), None),
        ("another name", authority.issue("elsewhere.example"), Some(&authority)),
        ("a certificate of the past", authority.issue_expired("localhost"), Some(&authority)),
    ] {
        for offer in [Offer::Http1, Offer::Both] {
            let receiver = TlsReceiver::start(&pems, offer, None).await;
            let outcome = call(&webhook(&receiver, trusted, None)).await;
            assert_failed(&outcome, ErrorKind::Tls, false, "no TLS session");
            assert_eq!(receiver.versions(), [""; 0], "{what}");
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_its_refusal_is_no_doubt() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let (server, client) = (authority.issue("localhost"), clients.issue_client("task-recorder"));
    let stranger = strangers.issue_client("task-recorder");
    for offer in [Offer::Http1, Offer::Both] {
        let receiver = TlsReceiver::start(&server, offer, Some(&clients)).await;
        let accepted = webhook(&receiver, Some(&authority), Some(&client));
        assert_eq!(call(&accepted).await.result, Ok(()), "{offer:?}");
        for (what, identity) in [("no certificate", None), ("a stranger's", Some(&stranger))] {
            let outcome = call(&webhook(&receiver, Some(&authority), identity)).await;
            let failure = outcome.result.unwrap_err();
            match offer {
                Offer::Http1 => {
                    assert_eq!((failure.kind, failure.in_doubt), (ErrorKind::Tls, false), "{what}");
                }
                // What the layer of HTTP/2 keeps of it does not tell.
                _ => assert_eq!(failure.kind, ErrorKind::ConnectionLost, "{what}"),
            }
        }
        assert_eq!(receiver.versions().len(), 1, "{offer:?}");
    }
}

#[test]
fn what_is_no_pem_is_told_without_what_it_holds() {
    let authority = Authority::new();
    let (pems, others) = (authority.issue("localhost"), authority.issue("localhost"));
    let inner = pems.key.lines().nth(1).unwrap();
    let broken = pems.key.replace(inner, &format!("{}!!", &inner[..10]));
    let unended = pems.key.lines().take(2).collect::<Vec<_>>().join("\n");
    for (text, why) in [
        ("", "no BEGIN PRIVATE KEY"),
        ("hush", "no BEGIN PRIVATE KEY"),
        (&pems.certificate, "no BEGIN PRIVATE KEY"),
        (&broken, "no base64"),
        (&unended, "no END line"),
    ] {
        let error = PrivateKey::from_pem(text.as_bytes()).err().unwrap().to_string();
        assert!(error.contains(why) && !error.contains("hush") && !error.contains(&inner[..10]), "{error}");
    }
    for (text, why) in [("", "no BEGIN CERTIFICATE"), (&pems.key, "no BEGIN CERTIFICATE")] {
        let error = CertificateChain::from_pem(text.as_bytes()).err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
        assert!(Authorities::from_pem(text.as_bytes()).is_err());
    }
    let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let error = Authorities::from_pem(garbage.as_bytes()).err().unwrap().to_string();
    assert!(error.contains("certificate 1 of the file cannot be used"), "{error}");

    let chain = CertificateChain::from_pem(pems.certificate.as_bytes()).unwrap();
    let key = PrivateKey::from_pem(others.key.as_bytes()).unwrap();
    let error = Tls::new(None, Some((&chain, &key))).unwrap_err().to_string();
    assert!(error.contains("the key does not fit the certificate"), "{error}");
}
