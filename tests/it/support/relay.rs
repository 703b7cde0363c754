//! An address that stays the same while the service behind it is restarted on another port.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Passes connections on; while nobody is behind it, it hangs up.
pub(crate) struct Relay {
    base: String,
    behind: Arc<Mutex<String>>,
    pieces: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Relay {
    /// To the service at this address, such as `http://127.0.0.1:8080`.
    pub(crate) async fn start(base: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let behind = Arc::new(Mutex::new(authority(base)));
        let mut serving = JoinSet::new();
        let (to, pieces) = (Arc::clone(&behind), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&pieces);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (to, counted) = (to.lock().unwrap().clone(), Arc::clone(&counted));
                connections.spawn(async move {
                    let Ok(mut there) = TcpStream::connect(to).await else { return };
                    let ((mut from_client, mut to_client), (mut from_service, mut to_service)) =
                        (stream.split(), there.split());
                    let forth = async {
                        let mut piece = vec![0; 64 << 10];
                        while let Ok(read @ 1..) = from_client.read(&mut piece).await {
                            if to_service.write_all(&piece[..read]).await.is_err() {
                                return;
                            }
                            counted.fetch_add(1, Ordering::AcqRel);
                        }
                    };
                    // Either end ends both.
                    tokio::select! {
                        () = forth => {}
                        _ = copy(&mut from_service, &mut to_client) => {}
                    }
                });
            }
        });
        Self { base: own, behind, pieces, _serving: serving }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// How many pieces have come from clients; a small request is one.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces.load(Ordering::Acquire)
    }

    /// From now on to another one.
    pub(crate) fn lead_to(&self, base: &str) {
        *self.behind.lock().unwrap() = authority(base);
    }
}

fn authority(base: &str) -> String {
    base.strip_prefix("http://").unwrap().to_owned()
}
