//! An open-loop client: requests go out at their times, however long others take, so that a
//! proxy that hangs can't slow its own measurement down.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// A request that has no answer by then has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a POST: small enough to be sent again by any proxy that would.
const BODY: &str = "value=1";

/// The load of a run.
#[derive(Clone)]
pub struct FaultLoad {
    pub method: &'static str,
    pub per_second: u32,
    pub span: Duration,
    /// The path of each request by its number.
    pub path: fn(u32) -> String,
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct TimedExchange {
    pub path: String,
    /// When it was to be sent, from the start of the run.
    pub due: Duration,
    /// How much later than that the client sent it.
    pub late: Duration,
    /// From when it was due to the end of its answer.
    pub took: Duration,
    pub outcome: ExchangeOutcome,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExchangeOutcome {
    /// 200 with the body of this very path.
    Right,
    /// Another answer.
    Wrong(String),
    /// No whole answer.
    Broken(String),
}

/// Sends the load, whose times count from `began`, and waits until each request has its end.
pub async fn send(proxy: SocketAddr, load: FaultLoad, began: Instant) -> Vec<TimedExchange> {
    let mut asked = JoinSet::new();
    let gap = Duration::from_secs(1) / load.per_second;
    let requests = (load.span.as_secs_f64() * f64::from(load.per_second)).round() as u32;
    for number in 0..requests {
        let due = gap * number;
        sleep_until(began + due).await;
        let path = (load.path)(number);
        asked.spawn(exchange(proxy, load.method, path, began, due));
    }
    asked.join_all().await
}

async fn exchange(
    proxy: SocketAddr,
    method: &'static str,
    path: String,
    began: Instant,
    due: Duration,
) -> TimedExchange {
    let late = began.elapsed().saturating_sub(due);
    let outcome = ask(proxy, method, &path).await;
    TimedExchange {
        path,
        due,
        late,
        took: began.elapsed().saturating_sub(due),
        outcome,
    }
}

/// Asks once, over a connection of its own: what kept connections do is another subject.
pub async fn ask(proxy: SocketAddr, method: &str, path: &str) -> ExchangeOutcome {
    match timeout(PATIENCE, try_ask(proxy, method, path)).await {
        Ok(Ok((200, body))) if body == path.as_bytes() => ExchangeOutcome::Right,
        Ok(Ok((status, body))) => {
            let body = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
            let body = body.replace(path, "PATH").replace(['\r', '\n'], " ");
            ExchangeOutcome::Wrong(format!("{status} {body}"))
        }
        Ok(Err(problem)) => ExchangeOutcome::Broken(format!("{problem:#}")),
        Err(_) => ExchangeOutcome::Broken(format!("no answer in {PATIENCE:?}")),
    }
}

/// The status and the body.
///
/// # Errors
/// When there is no whole answer.
pub async fn try_ask(
    proxy: SocketAddr,
    method: &str,
    path: &str,
) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(proxy).await.context("connect")?;
    let body = if method == "POST" { BODY } else { "" };
    let length = match body.len() {
        0 => String::new(),
        length => format!("content-length: {length}\r\n"),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {proxy}\r\nconnection: close\r\n{length}\r\n{body}"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .context("write")?;
    let mut read = Vec::new();
    loop {
        if let Some(answer) = whole_answer(&read)? {
            return Ok(answer);
        }
        ensure!(read.len() < 1024 * 1024, "an answer of more than 1 MiB");
        let more = stream.read_buf(&mut read).await.context("read")?;
        ensure!(more > 0, "the connection ended after {} bytes", read.len());
    }
}

/// The status and the body, if they are there to their end. An answer other than 200 ends
/// with its head here: its body counts for nothing.
fn whole_answer(bytes: &[u8]) -> anyhow::Result<Option<(u16, Vec<u8>)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status: u16 = status.with_context(|| format!("a status in {head}"))?;
    let body = &bytes[end + 4..];
    if status != 200 {
        return Ok(Some((status, body.to_vec())));
    }
    let field = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = field
        .and_then(|value| value.trim().parse().ok())
        .with_context(|| format!("Content-Length in {head}"))?;
    Ok(body.get(..length).map(|body| (status, body.to_vec())))
}

/// Asks until [`RIGHT_IN_A_ROW`] answers were right: all targets serve, and active checks have
/// seen it.
///
/// # Errors
/// When the proxy does not get there.
pub async fn settle(proxy: SocketAddr) -> anyhow::Result<()> {
    const RIGHT_IN_A_ROW: u32 = 30;
    let until = Instant::now() + PATIENCE;
    let (mut right, mut number) = (0, 0);
    while right < RIGHT_IN_A_ROW {
        number += 1;
        match ask(proxy, "GET", &format!("/settle/{number}")).await {
            ExchangeOutcome::Right => right += 1,
            ExchangeOutcome::Wrong(problem) | ExchangeOutcome::Broken(problem) => {
                ensure!(
                    Instant::now() < until,
                    "it does not serve its targets: {problem}"
                );
                right = 0;
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
