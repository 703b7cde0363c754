//! HTTP/1.1 by hand, so that an answer can break off at any byte. Requests have to state their length.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Answer, Behaviour, Call, Shared};

const FILLER: [u8; 16 * 1024] = [b'x'; 16 * 1024];

/// What comes after an answer.
enum Next {
    Call,
    Leave,
}

/// Takes connections and serves them until it is dropped.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                if shared.hangs_up_on_accept.load(Ordering::Acquire) {
                    continue;
                }
                let number = {
                    let mut state = shared.state();
                    state.connections += 1;
                    state.connections
                };
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    // That the caller is gone is its own matter.
                    let _ = serve(stream, number, &shared).await;
                    shared.closed.send_modify(|closed| *closed += 1);
                });
            }
            Some(_) = connections.join_next() => (),
        }
    }
}

async fn serve(stream: TcpStream, connection: usize, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(call) = read_call(&mut reader, connection).await? {
        let behaviour = shared.record(call);
        let result = tokio::select! {
            biased;
            result = answer(&mut writer, behaviour) => result,
            () = gone(&mut reader) => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        match result {
            Ok(Next::Call) => (),
            Ok(Next::Leave) => return Ok(()),
            Err(error) => {
                shared.cut.send_modify(|cut| *cut += 1);
                return Err(error);
            }
        }
    }
    Ok(())
}

async fn answer(writer: &mut OwnedWriteHalf, behaviour: Behaviour) -> io::Result<Next> {
    match behaviour {
        Behaviour::Answer(answer) => return whole(writer, &answer).await,
        Behaviour::AnswerAfter(gate, answer) => {
            gate.opened().await;
            return whole(writer, &answer).await;
        }
        Behaviour::AnswerAndLeave(answer) => {
            whole(writer, &answer).await?;
        }
        Behaviour::NeverAnswer => std::future::pending().await,
        Behaviour::HangUp => (),
        Behaviour::HangUpAfterHead(answer) => writer.write_all(&answer.head()).await?,
        Behaviour::HangUpInBody(answer) => partly(writer, &answer).await?,
        Behaviour::StallInBody(answer) => {
            partly(writer, &answer).await?;
            std::future::pending::<()>().await;
        }
        Behaviour::Endless(status) => {
            writer.write_all(format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes()).await?;
            loop {
                writer.write_all(&FILLER).await?;
            }
        }
        Behaviour::Huge(status, size) => {
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {size}\r\n\r\n");
            writer.write_all(head.as_bytes()).await?;
            let filler = tokio::io::repeat(FILLER[0]).take(size);
            tokio::io::copy_buf(&mut BufReader::with_capacity(FILLER.len(), filler), writer).await?;
            return Ok(Next::Call);
        }
        Behaviour::Raw(bytes) => writer.write_all(&bytes).await?,
    }
    Ok(Next::Leave)
}

async fn whole(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<Next> {
    let mut bytes = answer.head();
    bytes.extend_from_slice(&answer.body);
    writer.write_all(&bytes).await?;
    Ok(Next::Call)
}

async fn partly(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut bytes = answer.head();
    bytes.extend_from_slice(&answer.body[..answer.body.len().saturating_sub(1)]);
    writer.write_all(&bytes).await
}

/// Ends when the caller has ended the connection.
async fn gone(reader: &mut BufReader<OwnedReadHalf>) {
    if reader.fill_buf().await.is_ok_and(|bytes| !bytes.is_empty()) {
        std::future::pending::<()>().await;
    }
}

/// The next request; none where the caller has ended the connection in front of one.
async fn read_call(reader: &mut BufReader<OwnedReadHalf>, connection: usize) -> io::Result<Option<Call>> {
    let mut line = String::new();
    if reader.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next()) else {
        return Err(invalid("no request line"));
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = HeaderMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(invalid)?;
        headers.append(name, HeaderValue::from_str(value.trim_start()).map_err(invalid)?);
    }
    let length =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    Ok(Some(Call { method, target, headers, body: body.into(), connection }))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
