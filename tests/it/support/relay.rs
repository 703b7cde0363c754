//! An address that stays the same while the service behind it is restarted on another port.

use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Passes connections on; while nobody is behind it, it hangs up.
pub(crate) struct Relay {
    base: String,
    behind: Arc<Mutex<String>>,
    _serving: JoinSet<()>,
}

impl Relay {
    /// To the service at this address, such as `http://127.0.0.1:8080`.
    pub(crate) async fn start(base: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let behind = Arc::new(Mutex::new(authority(base)));
        let mut serving = JoinSet::new();
        let to = Arc::clone(&behind);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let to = to.lock().unwrap().clone();
                connections.spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(to).await {
                        // An error is an end.
                        let _ = copy_bidirectional(&mut stream, &mut there).await;
                    }
                });
            }
        });
        Self { base: own, behind, _serving: serving }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// From now on to another one.
    pub(crate) fn lead_to(&self, base: &str) {
        *self.behind.lock().unwrap() = authority(base);
    }
}

fn authority(base: &str) -> String {
    base.strip_prefix("http://").unwrap().to_owned()
}
