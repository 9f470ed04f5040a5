//! The origin of all cases: by a request's host it knows the case, and gives the answer
//! that the step which is being played holds ready.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use tokio::net::{TcpListener, TcpStream};

use crate::rfc::case::{Answer, Step};
use crate::rfc::clock::Clock;
use crate::rfc::wire::{Framing, Head, Wire, joined};

/// Every case's scene, by host.
#[derive(Clone, Default)]
pub struct Stage(Arc<Mutex<HashMap<String, Arc<Scene>>>>);

/// One case at the origin.
pub struct Scene {
    pub clock: Clock,
    playing: Mutex<Playing>,
}

#[derive(Default)]
struct Playing {
    number: usize,
    step: Step,
    seen: Vec<Asked>,
}

/// A request as the origin saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub fields: HeaderMap,
    pub body: Bytes,
}

impl Stage {
    /// Starts the origin; it ends with the test's runtime.
    pub async fn open() -> (Self, SocketAddr) {
        let stage = Self::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let scenes = stage.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, scenes.clone()));
            }
        });
        (stage, address)
    }

    pub(super) fn enter(&self, host: &str, clock: Clock) -> Arc<Scene> {
        let scene = Arc::new(Scene {
            clock,
            playing: Mutex::default(),
        });
        let mut scenes = self.0.lock().unwrap();
        scenes.insert(host.to_owned(), Arc::clone(&scene));
        scene
    }

    /// A case has its host name and the names below it, in any case and with any port.
    fn find(&self, host: &str) -> Option<Arc<Scene>> {
        let name = host.to_ascii_lowercase();
        let host = name.split_once(':').map_or(name.as_str(), |(name, _)| name);
        let scenes = self.0.lock().unwrap();
        let above = || {
            host.split_once('.')
                .and_then(|(_, above)| scenes.get(above))
        };
        scenes.get(host).or_else(above).cloned()
    }
}

impl Scene {
    /// From now on requests get this step's answers.
    pub fn begin(&self, number: usize, step: &Step) {
        *self.playing.lock().unwrap() = Playing {
            number,
            step: step.clone(),
            seen: Vec::new(),
        };
    }

    /// What was asked in this step.
    pub fn seen(&self) -> Vec<Asked> {
        self.playing.lock().unwrap().seen.clone()
    }

    /// The body of a step's answer.
    pub fn body(&self, answer: &Answer) -> String {
        match &answer.body {
            Some(body) => self.clock.fill(body),
            None => format!("body {}", self.playing.lock().unwrap().number),
        }
    }

    fn expected(&self) -> Answer {
        let playing = self.playing.lock().unwrap();
        playing.step.answer(playing.seen.len())
    }

    fn note(&self, asked: Asked) {
        self.playing.lock().unwrap().seen.push(asked);
    }
}

async fn serve(stream: TcpStream, stage: Stage) {
    let mut wire = Wire::new(stream);
    while let Some(head) = wire.head().await {
        if !answer(&mut wire, head, &stage).await {
            return;
        }
    }
}

/// Reads one request and answers it; false when the connection is to close.
async fn answer(wire: &mut Wire, head: Head, stage: &Stage) -> bool {
    let host = joined(&head.fields, "host").unwrap_or_default();
    let Some(scene) = stage.find(&host) else {
        wire.write(b"HTTP/1.1 421 No Such Case\r\nContent-Length: 0\r\n\r\n")
            .await;
        return true;
    };
    let answer = scene.expected();
    for status in &answer.interim {
        let line = format!("HTTP/1.1 {status} Wait\r\nX-Interim: {status}\r\n\r\n");
        wire.write(line.as_bytes()).await;
    }
    let expects = head.fields.contains_key("expect");
    if expects && !answer.early {
        wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    }
    let body = match answer.early {
        true => Bytes::new(),
        false => wire.body(Framing::of(&head.fields, Framing::None)).await.0,
    };
    let mut words = head.start.split(' ').map(str::to_owned);
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let text = text(&scene, &answer, &method);
    scene.note(Asked {
        method,
        target,
        fields: head.fields,
        body,
    });
    if answer.closes {
        return false;
    }
    wire.write(text.as_bytes()).await && !answer.cut && !answer.early && answer.version.is_none()
}

/// The answer as it goes over the wire.
fn text(scene: &Scene, answer: &Answer, method: &str) -> String {
    let status = answer.status.unwrap_or(200);
    let version = answer.version.as_deref().unwrap_or("1.1");
    let body = scene.body(answer);
    let mut text = format!("HTTP/{version} {status} As The Table Says\r\n");
    for (name, line) in answer.fields.lines() {
        let _ = write!(text, "{name}: {}\r\n", scene.clock.fill(line));
    }
    let bodiless = matches!(status, 101 | 204 | 304);
    let said = answer.fields.get("content-length").is_some();
    if answer.chunked {
        text.push_str("Transfer-Encoding: chunked\r\n");
    } else if !bodiless && !said && answer.version.is_none() {
        let length = body.len() + if answer.cut { 10 } else { 0 };
        let _ = write!(text, "Content-Length: {length}\r\n");
    }
    text.push_str("\r\n");
    match (bodiless || method == "HEAD", answer.chunked) {
        (true, _) => {}
        (false, false) => text.push_str(&body),
        (false, true) => chunks(&mut text, scene, answer, &body),
    }
    text
}

fn chunks(text: &mut String, scene: &Scene, answer: &Answer, body: &str) {
    let _ = write!(text, "{:x}\r\n{body}\r\n", body.len());
    if answer.cut {
        return;
    }
    text.push_str("0\r\n");
    for (name, line) in answer.trailers.lines() {
        let _ = write!(text, "{name}: {}\r\n", scene.clock.fill(line));
    }
    text.push_str("\r\n");
}
