//! The client's side of a step: one request on a connection of its own.

use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http::HeaderMap;
use tokio::net::TcpStream;

use crate::rfc::case::Step;
use crate::rfc::clock::Clock;
use crate::rfc::wire::{Framing, Head, Wire};
use crate::wait::{SOON, within};

/// What the client got.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Bytes,
    pub whole: bool,
    pub interim: Vec<u16>,
}

/// Sends a step's request and reads what comes; none when that is no answer.
pub async fn exchange(gateway: SocketAddr, step: &Step, clock: &Clock) -> Option<Got> {
    let stream = within("connecting", SOON, TcpStream::connect(gateway)).await;
    let mut wire = Wire::new(stream.expect("the gateway accepts"));
    let body = clock.fill(step.send.body.as_deref().unwrap_or(""));
    wire.write(head(step, clock, body.len()).as_bytes()).await;
    let mut waits = step.send.fields.get("expect").is_some();
    if !waits {
        wire.write(body.as_bytes()).await;
    }
    let mut interim = Vec::new();
    loop {
        let head = wire.head().await?;
        let status = status(&head);
        if (100..200).contains(&status) && status != 101 {
            interim.push(status);
            if std::mem::take(&mut waits) {
                wire.write(body.as_bytes()).await;
            }
            continue;
        }
        return Some(finish(&mut wire, step, status, head.fields, interim).await);
    }
}

fn head(step: &Step, clock: &Clock, length: usize) -> String {
    let version = step.send.version.as_deref().unwrap_or("1.1");
    let (method, target) = (step.method(), clock.fill(step.target()));
    let mut head = format!("{method} {target} HTTP/{version}\r\n");
    if step.send.fields.get("host").is_none() {
        let _ = write!(head, "Host: {}\r\n", clock.host());
    }
    if step.send.body.is_some() {
        let _ = write!(head, "Content-Length: {length}\r\n");
    }
    for (name, line) in step.send.fields.lines() {
        let _ = write!(head, "{name}: {}\r\n", clock.fill(line));
    }
    head + "\r\n"
}

async fn finish(
    wire: &mut Wire,
    step: &Step,
    status: u16,
    fields: HeaderMap,
    interim: Vec<u16>,
) -> Got {
    let framing = match status {
        101 | 204 | 304 => Framing::None,
        _ if step.method() == "HEAD" => Framing::None,
        _ => Framing::of(&fields, Framing::ToEnd),
    };
    let (body, whole) = wire.body(framing).await;
    Got {
        status,
        fields,
        body,
        whole,
        interim,
    }
}

fn status(head: &Head) -> u16 {
    let code = head
        .start
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no status in {:?}", head.start))
}
