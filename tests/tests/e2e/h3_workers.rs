//! Datagrams of clients that move, and the workers that they reach (edge.md, Q1).

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;

use e2e::h3::client::{Exchange, H3Client};
use e2e::h3::{SecuredGateway, pattern};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::upgrade::{script, server};
use e2e::wait::{SOON, wait_until, within};
use futures_util::future::join_all;

const MIB: usize = 1 << 20;
const WRONG: &str = "lamina_quic_wrong_worker_packets_total";

async fn site(length: usize, change: impl FnOnce(Setup) -> Setup) -> (Origin, SecuredGateway) {
    let body = pattern(length);
    let origin =
        Origin::pages(move |_| Reply::ok(body.clone()).header("cache-control", "no-store")).await;
    let setup = Setup::new(&origin).top("server", "{threads: 4, drain_timeout: 1m}");
    (origin, SecuredGateway::start(change(setup)).await)
}

/// Gives the client another port on this address of the machine.
fn move_to(client: &H3Client, address: Ipv4Addr) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    client.endpoint.rebind(socket).unwrap();
}

/// The page, whole though the client moves each time that so much has come.
async fn while_moving(client: &H3Client, length: usize, step: usize) -> usize {
    let Exchange {
        mut upload,
        mut download,
    } = client.request("/").open().await.unwrap();
    upload.finish().await;
    assert_eq!(download.head().await.unwrap().0, 200);
    let (mut body, mut moves) = (Vec::with_capacity(length), 0);
    while let Some(piece) = within("the next piece", SOON, download.piece())
        .await
        .unwrap()
    {
        body.extend_from_slice(&piece);
        if body.len() > (moves + 1) * step {
            // Every other time the address is another one, too.
            let last = 1 + (moves % 2 == 0) as u8;
            move_to(client, Ipv4Addr::new(127, 0, 0, last));
            moves += 1;
        }
    }
    assert!(body == pattern(length), "the body was changed");
    moves
}

/// `h3::rebinding_and_migration` of edge.md.
#[tokio::test]
async fn rebinding_and_migration() {
    const LENGTH: usize = 50 * MIB;
    let (_origin, secured) = site(LENGTH, |setup| setup).await;
    let clients = join_all((0..4).map(|_| secured.client())).await;
    let moves = while_moving(&clients[0], LENGTH, 5 * MIB).await;
    assert!(moves >= 9, "moved {moves} times");
    let wrong = secured.gateway.metric(WRONG, &[]).await;
    // A datagram has at most 1,452 octets, so there were more than that many of the gateway's, and
    // acknowledgements are a good part of it.
    let fewest = (LENGTH / 1_452 / 10) as f64;
    assert!(wrong < fewest / 100.0, "{wrong} of {fewest} and more");
}

/// Where the kernel takes no filter, clients are served all the same. A library that is loaded
/// before all others refuses it.
#[tokio::test]
async fn without_the_filter_workers_hand_datagrams_on() {
    const LENGTH: usize = 2 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let preload = refusing_library(dir.path());
    let (_origin, secured) = site(LENGTH, |setup| setup.variable("LD_PRELOAD", &preload)).await;
    secured
        .gateway
        .logged("a warning", |line| {
            line.contains("takes no filter for QUIC")
        })
        .await;
    // So many that hardly all of them are with the worker that the kernel chooses.
    let clients = join_all((0..12).map(|_| secured.client())).await;
    let asking = clients
        .iter()
        .map(|client| while_moving(client, LENGTH, MIB / 2));
    let moves: usize = join_all(asking).await.into_iter().sum();
    assert!(moves >= 12 * 3, "{moves}");
    let wrong = secured.gateway.metric(WRONG, &[]).await;
    assert!(wrong > 12.0, "{wrong}");
}

/// The kernel frees a filter that another one takes the place of while it may still run, so a
/// process that takes over leaves the one that stands: none is refused to it here.
#[tokio::test]
async fn a_take_over_leaves_the_filter_alone() {
    const LENGTH: usize = MIB;
    let (_origin, secured) = site(LENGTH, |setup| setup.top("server", &server(""))).await;
    let dir = tempfile::tempdir().unwrap();
    let preload = refusing_library(dir.path());
    let text = format!("LD_PRELOAD={preload} exec $LAMINA \"$@\"");
    let binary = script(&dir.path().join("lamina"), &text);
    let ran = secured
        .gateway
        .try_upgrade(&["--binary", &binary, "--timeout", "2m"])
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    wait_until("the next process tells its listeners", SOON, || {
        secured.gateway.addresses().len() > 1
    })
    .await;
    let told = secured.gateway.log();
    let warned = told.iter().any(|line| line.contains("takes no filter"));
    assert!(!warned, "{told:?}");
    let client = secured.client().await;
    assert!(while_moving(&client, LENGTH, MIB / 4).await >= 2);
}

/// A library by which the kernel takes no filter, made in this folder.
fn refusing_library(dir: &Path) -> String {
    let (source, library) = (dir.join("refuse.c"), dir.join("refuse.so"));
    std::fs::write(&source, REFUSES).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .expect("a C compiler, which rustc needs, too");
    assert!(built.success());
    library.to_str().unwrap().to_owned()
}

/// `setsockopt` that does not know SO_ATTACH_REUSEPORT_CBPF (51).
const REFUSES: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
    if (level == SOL_SOCKET && name == 51) {
        errno = ENOPROTOOPT;
        return -1;
    }
    int (*real)(int, int, int, const void *, socklen_t) = dlsym(RTLD_NEXT, "setsockopt");
    return real(fd, level, name, value, length);
}
"#;
