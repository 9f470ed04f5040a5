//! WASI 0.2 for languages that need it (`wasi: minimal`): clocks and randomness.
//!
//! All of its interfaces are linked, since the runtimes of languages import them even if they are
//! not used. What is not granted fails: no folder is open, no socket can be made, environment and
//! arguments are empty. What a guest prints goes to the gateway's log, line by line.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, async_trait};
use wasmtime_wasi_http::WasiHttpCtx;

use super::guest::GuestState;
use super::log_text::one_line;
use super::wasi_http::OutgoingAccess;
use crate::telemetry::limit::LineLimiter;

/// The most random bytes that one call returns.
const MAX_RANDOM: u64 = 64 << 10;
/// The most host resources that an instance may hold at the same time: header fields take up to 128
/// KiB each, which the instance's memory limit does not count.
const MAX_RESOURCES: usize = 512;
/// Bytes of a line that are logged.
const MAX_LINE: usize = 2 << 10;

/// The WASI state of one instance.
pub(super) struct WasiState {
    pub(super) context: WasiCtx,
    pub(super) table: ResourceTable,
    pub(super) http: WasiHttpCtx,
    pub(super) outgoing: OutgoingAccess,
}

impl WasiState {
    pub(super) fn new(plugin: &Arc<str>, log: &Arc<LineLimiter>) -> Self {
        let lines = |level| GuestOutput {
            plugin: Arc::clone(plugin),
            log: Arc::clone(log),
            level,
        };
        let context = WasiCtxBuilder::new()
            .stdout(lines(OutputLevel::Info))
            .stderr(lines(OutputLevel::Warn))
            .max_random_size(MAX_RANDOM)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self {
            context,
            table,
            http: WasiHttpCtx::new(),
            outgoing: OutgoingAccess::default(),
        }
    }
}

/// Links all interfaces.
pub(super) fn add(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView {
            ctx: &mut wasi.context,
            table: &mut wasi.table,
        }
    }
}

#[derive(Clone, Copy)]
enum OutputLevel {
    Info,
    Warn,
}

/// Where the output of a guest goes.
#[derive(Clone)]
struct GuestOutput {
    plugin: Arc<str>,
    log: Arc<LineLimiter>,
    level: OutputLevel,
}

/// One output stream of a guest; complete lines are logged.
struct GuestLines {
    to: GuestOutput,
    begun: Vec<u8>,
}

impl GuestOutput {
    fn line(&self, line: &[u8]) {
        let Some(dropped) = self.log.admit(Instant::now()) else {
            return;
        };
        let (plugin, line) = (&*self.plugin, String::from_utf8_lossy(line));
        let line = one_line(&line, MAX_LINE);
        match self.level {
            OutputLevel::Info => tracing::info!(plugin, dropped, "{line}"),
            OutputLevel::Warn => tracing::warn!(plugin, dropped, "{line}"),
        }
    }
}

impl GuestLines {
    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let room = MAX_LINE.saturating_sub(self.begun.len());
            self.begun
                .extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = mem::take(&mut self.begun);
                self.to.line(line.trim_ascii_end());
            }
        }
    }
}

impl Drop for GuestLines {
    fn drop(&mut self) {
        if !self.begun.is_empty() {
            self.to.line(&self.begun);
        }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.lines())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.lines())
    }
}

impl GuestOutput {
    fn lines(&self) -> GuestLines {
        GuestLines {
            to: self.clone(),
            begun: Vec::new(),
        }
    }
}

impl OutputStream for GuestLines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_LINE)
    }
}

#[async_trait]
impl Pollable for GuestLines {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestLines {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
