//! `floor ADDR`: the least that a server can do for a request.
//!
//! One thread, epoll (through mio), one read, one write of a response built
//! beforehand; nothing is parsed. What it costs is the kernel's part, so every
//! server's cost is shown as a multiple of it. Its response is cacheable, which
//! makes it the benchmark's origin as well. Decision: one read is one request;
//! wrk and the servers that we measure never pipeline and send a head in one piece.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const BODY_BYTES: usize = 1024;
/// The page `/large`. While it is sent nobody else is served: a cache asks for it once.
const LARGE_BYTES: usize = 64 << 20;

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped("floor ADDRESS:PORT") {
        return Ok(());
    }
    let address: SocketAddr = std::env::args()
        .nth(1)
        .context("usage: floor ADDRESS:PORT")?
        .parse()
        .context("not an address")?;
    serve(address).with_context(|| format!("serving {address}"))
}

fn serve(address: SocketAddr) -> io::Result<()> {
    let (response, large) = (response(BODY_BYTES), response(LARGE_BYTES));
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections)?;
            } else if !answer(connections[event.token().0].as_mut(), (&response, &large)) {
                connections[event.token().0] = None;
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<TcpStream>>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        let place = connections
            .iter()
            .position(Option::is_none)
            .unwrap_or(connections.len());
        poll.registry()
            .register(&mut stream, Token(place), Interest::READABLE)?;
        if place == connections.len() {
            connections.push(Some(stream));
        } else {
            connections[place] = Some(stream);
        }
    }
}

/// One read, one write; false when the connection is over.
fn answer(connection: Option<&mut TcpStream>, (response, large): (&[u8], &[u8])) -> bool {
    let Some(stream) = connection else {
        return true;
    };
    let mut request = [0; 4096];
    match stream.read(&mut request) {
        Ok(0) => false,
        Ok(_) if request.starts_with(b"GET /large ") => write_slowly(stream, large).is_ok(),
        Ok(_) => stream.write_all(response).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Writes more than a socket takes at once.
fn write_slowly(stream: &mut TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn response(octets: usize) -> Vec<u8> {
    let mut text = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {octets}\r\n\
         cache-control: max-age=3600\r\netag: \"bench-1\"\r\nsurrogate-key: bench page-1\r\n\r\n"
    )
    .into_bytes();
    text.resize(text.len() + octets, b'x');
    text
}
