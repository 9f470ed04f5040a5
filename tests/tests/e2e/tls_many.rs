//! Ten thousand names, each with a certificate of its own (edge.md, 1).

use std::fs;
use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::random::Random;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::TlsClient;
use e2e::tls::authority::{Authority, Certificate, Key, KeyKind, Order};
use e2e::wait::{SOON, within};

/// Names, every other one with a certificate for RSA.
const NAMES: usize = 10_000;
/// Keys for RSA: to make one takes a tenth of a second. Each certificate is another one.
const RSA_KEYS: usize = 8;
/// What they may add to the memory of the process.
const MEMORY: u64 = 64 << 20;
/// Handshakes for names by chance.
const LOOKS: usize = 300;
const TLS: &str = "{certificates: [{dir: certs}]}";

fn name(number: usize) -> String {
    format!("host-{number}.example")
}

fn certificates(authority: &Authority) -> Vec<Certificate> {
    let rsa: Vec<Key> = (0..RSA_KEYS).map(|_| Key::new(KeyKind::Rsa2048)).collect();
    let one = |number: usize| {
        let order = Order::server(&[&name(number)]);
        match number % 2 {
            0 => authority.make(&order),
            _ => authority.sign(&order, &rsa[number / 2 % RSA_KEYS]),
        }
    };
    (0..NAMES).map(one).collect()
}

async fn started(setup: Setup) -> (Gateway, Duration) {
    let begun = Instant::now();
    let gateway = setup.start().await;
    (gateway, begun.elapsed())
}

/// The certificate that is shown for a name.
async fn shown(gateway: &Gateway, number: usize) -> Vec<u8> {
    let client = TlsClient::new(gateway.address, &name(number));
    client.connect().await.unwrap().certificate()
}

/// Measured figures are printed; what is asserted leaves room for a busy machine, but for memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hosts() {
    let authority = Authority::new("authority");
    let all = certificates(&authority);
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let one = Setup::new(&origin)
        .listener("tls", TLS)
        .pair("certs/0", &all[0]);
    let (alone, _) = started(one).await;
    shown(&alone, 0).await;
    let before = alone.resident_bytes();
    drop(alone);
    let setup = Setup::new(&origin).listener("tls", TLS);
    let numbered = all.iter().enumerate();
    let setup = numbered.fold(setup, |setup, (number, certificate)| {
        setup.pair(&format!("certs/{number}"), certificate)
    });
    let (gateway, start) = started(setup).await;
    shown(&gateway, 0).await;
    let grown = gateway.resident_bytes().saturating_sub(before);
    let mut random = Random::new(1);
    for _ in 0..LOOKS {
        let number = random.below(NAMES as u64) as usize;
        assert_eq!(shown(&gateway, number).await, all[number].der, "{number}");
    }
    let (quiet, _) = handshakes(&gateway, &mut random, LOOKS).await;
    let new = authority.server(&[&name(7)]);
    let folder = gateway.dir().join("certs");
    fs::write(folder.join("7.crt"), &new.pem).unwrap();
    fs::write(folder.join("7.key"), &new.key).unwrap();
    let begun = Instant::now();
    let mut during = Vec::new();
    let reload = async {
        while shown(&gateway, 7).await != new.der {
            let (_, all) = handshakes(&gateway, &mut random, 10).await;
            during.extend(all);
        }
    };
    within("the new certificate is shown", SOON, reload).await;
    let reload = begun.elapsed();
    eprintln!(
        "{NAMES} names: {} MiB, started in {start:?}, one reloaded in {reload:?}, \
         p99 of handshakes {quiet:?}, meanwhile {:?}",
        grown >> 20,
        p99(during)
    );
    assert!(grown <= MEMORY, "{grown} bytes for {NAMES} names");
    assert!(start < SOON * 3, "started in {start:?}");
    let resident = gateway.resident_bytes().saturating_sub(before);
    assert!(resident <= MEMORY + (8 << 20), "{resident} after a reload");
}

/// Handshakes one after the other: the 99th percentile, and all.
async fn handshakes(
    gateway: &Gateway,
    random: &mut Random,
    count: usize,
) -> (Duration, Vec<Duration>) {
    let mut took = Vec::new();
    for _ in 0..count {
        let number = random.below(NAMES as u64) as usize;
        let begun = Instant::now();
        shown(gateway, number).await;
        took.push(begun.elapsed());
    }
    (p99(took.clone()), took)
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    let at = (took.len() * 99 / 100).min(took.len().saturating_sub(1));
    took.get(at).copied().unwrap_or_default()
}
