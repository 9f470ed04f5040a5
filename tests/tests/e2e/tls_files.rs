//! Files of certificates that change while the gateway runs (edge.md, TLS9 and the metric of
//! TLS13).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use e2e::gateway::Gateway;
use e2e::named_pipe;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::TlsClient;
use e2e::tls::authority::{Authority, Certificate, Order};
use e2e::tls::site::{HttpsSite, NAME};
use e2e::wait::{SOON, passed, wait_until, within};

const FAILURES: &str = "lamina_tls_reload_failures_total";
const PLAIN: &str = "plain.test";
const KUBE: &str = "kube.test";

/// Full handshakes that are made all the time, and what they showed.
struct HandshakeLoad {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    seen: Arc<Mutex<Vec<String>>>,
    handshakes: Arc<AtomicUsize>,
    /// The certificates that may be shown.
    good: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl HandshakeLoad {
    fn on(gateway: &Gateway, good: Vec<Vec<u8>>) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            tasks: Vec::new(),
            seen: Arc::default(),
            handshakes: Arc::default(),
            good: Arc::new(Mutex::new(good)),
        };
        for name in [PLAIN, KUBE, PLAIN, KUBE] {
            let client = TlsClient::new(gateway.address, name);
            let (stop, faults) = (load.stop.clone(), load.seen.clone());
            let (handshakes, good) = (load.handshakes.clone(), load.good.clone());
            load.tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let fault = match client.clone().anew().connect().await {
                        Err(failure) => Some(format!("{failure:?}")),
                        Ok(connection) => {
                            let shown = connection.certificate();
                            let known = good.lock().unwrap().contains(&shown);
                            (!known).then(|| "a certificate that is not good".to_owned())
                        }
                    };
                    faults.lock().unwrap().extend(fault);
                    handshakes.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        load
    }

    fn may_show(&self, certificate: &Certificate) {
        self.good.lock().unwrap().push(certificate.der.clone());
    }

    /// Ends it; how many handshakes there were, and what went wrong.
    async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let faults = self.seen.lock().unwrap().clone();
        (self.handshakes.load(Ordering::Relaxed), faults)
    }
}

/// Waits until this certificate is shown for a name, at most as long as TLS9 allows.
async fn shown(gateway: &Gateway, name: &str, certificate: &Certificate, limit: Duration) {
    let client = TlsClient::new(gateway.address, name);
    let shown = async {
        loop {
            let connection = client.clone().anew().connect().await.unwrap();
            if connection.certificate() == certificate.der {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within("the new certificate is shown", limit, shown).await;
}

async fn failures(gateway: &Gateway) -> f64 {
    gateway.metric(FAILURES, &[]).await
}

async fn one_more_failure(gateway: &Gateway, before: f64) {
    gateway
        .metric_until(FAILURES, &[], |now| now > before)
        .await;
}

fn rename_over(file: &Path, content: &str) {
    let next = file.with_extension("next");
    fs::write(&next, content).unwrap();
    fs::rename(next, file).unwrap();
}

/// A secret as Kubernetes mounts it: files lead through `..data` into a folder that is swapped.
fn mount(secret: &Path, generation: usize, certificate: &Certificate) {
    let folder = format!("..generation{generation}");
    fs::create_dir_all(secret.join(&folder)).unwrap();
    fs::write(secret.join(&folder).join("tls.crt"), &certificate.pem).unwrap();
    fs::write(secret.join(&folder).join("tls.key"), &certificate.key).unwrap();
    symlink(&folder, secret.join("..data_tmp")).unwrap();
    fs::rename(secret.join("..data_tmp"), secret.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        let link = secret.join(file);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(file), link).unwrap();
        }
    }
    if let Some(before) = generation.checked_sub(1) {
        fs::remove_dir_all(secret.join(format!("..generation{before}"))).unwrap();
    }
}

/// A gateway with a pair by its files and one in a folder.
async fn gateway(authority: &Authority, interval: &str) -> (Gateway, [Certificate; 2], Origin) {
    let (plain, kube) = (authority.server(&[PLAIN]), authority.server(&[KUBE]));
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let pairs = "[{cert: plain.crt, key: plain.key}, {dir: certs}]";
    let tls = format!("{{certificates: {pairs}, reload_interval: {interval}}}");
    let setup = Setup::new(&origin)
        .pair("plain", &plain)
        .file("certs/.keep", "")
        .listener("tls", &tls);
    let (dir, config) = setup.write();
    let secret = dir.path().join("certs/secret");
    fs::create_dir_all(&secret).unwrap();
    mount(&secret, 0, &kube);
    let gateway = Gateway::start(dir, &config, &[]).await;
    (gateway, [plain, kube], origin)
}

/// Each has ten changes.
const ROUNDS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_change_in_every_way() {
    let authority = Authority::new("authority");
    let (gateway, [plain, kube], _origin) = gateway(&authority, "20ms").await;
    let kept = TlsClient::new(gateway.address, PLAIN);
    let mut kept = kept.http().await;
    kept.get(PLAIN, "/").await;
    let load = HandshakeLoad::on(&gateway, vec![plain.der.clone(), kube.der.clone()]);
    let (cert, key) = (
        gateway.dir().join("plain.crt"),
        gateway.dir().join("plain.key"),
    );
    let secret = gateway.dir().join("certs/secret");
    let within = SOON;
    let new = |name: &str| {
        let new = authority.server(&[name]);
        load.may_show(&new);
        new
    };
    let mut changes = 0;
    for round in 0..ROUNDS {
        // Each file renamed over, the certificate first.
        let one = new(PLAIN);
        rename_over(&cert, &one.pem);
        rename_over(&key, &one.key);
        shown(&gateway, PLAIN, &one, within).await;
        // Renamed over, the key first, and looked at in between.
        let one = new(PLAIN);
        let before = failures(&gateway).await;
        rename_over(&key, &one.key);
        one_more_failure(&gateway, before).await;
        rename_over(&cert, &one.pem);
        shown(&gateway, PLAIN, &one, within).await;
        // Written in place, the certificate first and in two halves.
        let one = new(PLAIN);
        let before = failures(&gateway).await;
        let (half, _) = one.pem.split_at(one.pem.len() / 2);
        fs::write(&cert, half).unwrap();
        one_more_failure(&gateway, before).await;
        fs::write(&cert, &one.pem).unwrap();
        fs::write(&key, &one.key).unwrap();
        shown(&gateway, PLAIN, &one, within).await;
        // Written in place, the key first and in two halves.
        let one = new(PLAIN);
        let before = failures(&gateway).await;
        let (half, _) = one.key.split_at(one.key.len() / 2);
        fs::write(&key, half).unwrap();
        one_more_failure(&gateway, before).await;
        fs::write(&key, &one.key).unwrap();
        fs::write(&cert, &one.pem).unwrap();
        shown(&gateway, PLAIN, &one, within).await;
        // The folder of a mounted secret swapped.
        let one = new(KUBE);
        mount(&secret, round + 1, &one);
        shown(&gateway, KUBE, &one, within).await;
        // A pair that does not fit, one that is no PEM, one that has expired: none is taken.
        let expired = authority.make(&Order::server(&[PLAIN]).expired());
        for (pem, key_pem) in [
            (&*authority.server(&[PLAIN]).pem, None),
            (
                "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
                None,
            ),
            ("", None),
            (&*expired.pem, Some(&*expired.key)),
        ] {
            let before = failures(&gateway).await;
            rename_over(&cert, pem);
            if let Some(key_pem) = key_pem {
                rename_over(&key, key_pem);
            }
            one_more_failure(&gateway, before).await;
            changes += 1;
        }
        // Deletion: what was good stays in use, until there is another one.
        let before = failures(&gateway).await;
        fs::remove_file(&cert).unwrap();
        fs::remove_file(&key).unwrap();
        one_more_failure(&gateway, before).await;
        let one = new(PLAIN);
        fs::write(&cert, &one.pem).unwrap();
        fs::write(&key, &one.key).unwrap();
        shown(&gateway, PLAIN, &one, within).await;
        changes += 6;
    }
    let (handshakes, faults) = load.end().await;
    assert_eq!(faults, Vec::<String>::new(), "of {handshakes} handshakes");
    assert!(handshakes > 10 * ROUNDS, "{handshakes} handshakes");
    assert_eq!(changes, 10 * ROUNDS);
    // An open connection goes on.
    assert_eq!(kept.get(PLAIN, "/").await.status, 200);
}

#[tokio::test]
async fn a_change_counts_within_three_seconds_by_default() {
    let site = HttpsSite::start("").await;
    let reloads = || {
        let log = site.gateway.log();
        let reloads = |line: &&String| line.contains("certificates reloaded");
        log.iter().filter(reloads).count()
    };
    for n in 1..=3 {
        let new = site.authority.server(&[NAME]);
        rename_over(&site.gateway.dir().join("a.key"), &new.key);
        rename_over(&site.gateway.dir().join("a.crt"), &new.pem);
        wait_until("it is loaded", Duration::from_secs(3), || reloads() == n).await;
        shown(&site.gateway, NAME, &new, SOON).await;
    }
}

#[tokio::test]
async fn what_can_not_be_taken_is_told_once_for_each_content() {
    let site = HttpsSite::start("reload_interval: 50ms").await;
    let told = || {
        let log = site.gateway.log();
        let told = |line: &&String| line.contains("certificate not taken");
        log.iter().filter(told).count()
    };
    let cert = site.gateway.dir().join("a.crt");
    for n in 1..=3 {
        rename_over(&cert, &site.authority.server(&[NAME]).pem);
        wait_until("it is told", SOON, || told() == n).await;
        // Some looks later it was not told again.
        passed(Instant::now(), Duration::from_millis(500)).await;
        assert_eq!(told(), n);
        assert_eq!(failures(&site.gateway).await, n as f64);
    }
    // What was good is good again, and the same mistake after it is told again.
    rename_over(&cert, &site.certificate.pem);
    let loads = |line: &str| line.contains("certificates reloaded");
    site.gateway.logged("it is loaded again", loads).await;
    rename_over(&cert, &site.authority.server(&[NAME]).pem);
    wait_until("it is told", SOON, || told() == 4).await;
    assert_eq!(site.client().status(NAME).await, Ok(200));
}

#[tokio::test]
async fn without_an_interval_nothing_is_looked_at() {
    let site = HttpsSite::start("reload_interval: 0s").await;
    let usual = HttpsSite::start("reload_interval: 50ms").await;
    for site in [&site, &usual] {
        let new = usual.authority.server(&[NAME]);
        rename_over(&site.gateway.dir().join("a.crt"), &new.pem);
        rename_over(&site.gateway.dir().join("a.key"), &new.key);
    }
    let loads = |line: &str| line.contains("certificates reloaded");
    usual.gateway.logged("the other one is loaded", loads).await;
    let connection = site.client().connect().await.unwrap();
    assert_eq!(connection.certificate(), site.certificate.der);
}

/// Certificates and the secrets of tickets alike; the configuration itself is the same as before.
#[tokio::test]
async fn a_reload_looks_at_the_files_whatever_the_interval_is() {
    let secret = |letter: &str| letter.repeat(40);
    let tickets = "reload_interval: 0s, tickets: {keys: [ticket.key]}";
    let files = |setup: Setup| setup.file("ticket.key", secret("a"));
    let site = HttpsSite::with(tickets, files, |_| Reply::fresh("page")).await;
    let client = site.client().only_tls12();
    assert_eq!(client.status(NAME).await, Ok(200));
    assert!(client.connect().await.unwrap().is_resumed());
    let new = site.authority.server(&[NAME]);
    let file = |name: &str| site.gateway.dir().join(name);
    rename_over(&file("a.crt"), &new.pem);
    rename_over(&file("a.key"), &new.key);
    rename_over(&file("ticket.key"), &secret("b"));
    site.gateway.hang_up_until("applied").await;
    shown(&site.gateway, NAME, &new, SOON).await;
    assert!(!client.connect().await.unwrap().is_resumed());
    // What is none stays out, and is told.
    let before = failures(&site.gateway).await;
    assert_eq!(client.status(NAME).await, Ok(200));
    rename_over(&file("ticket.key"), "short");
    site.gateway.hang_up();
    one_more_failure(&site.gateway, before).await;
    assert!(client.connect().await.unwrap().is_resumed());
}

/// What is wrong with the files of a policy is told, and is no matter of certificates.
#[tokio::test]
async fn certificates_do_not_wait_for_files_of_policies() {
    let clients = Authority::new("clients");
    let tls = format!(
        "reload_interval: 50ms, policies: [{{names: [{NAME}], client_auth: {{mode: request, ca: ca.pem, crl: clients.crl}}}}]"
    );
    let files = |setup: Setup| {
        let lists = clients.revoke(&[]);
        setup
            .file("ca.pem", &*clients.pem)
            .file("clients.crl", lists)
    };
    let site = HttpsSite::with(&tls, files, |_| Reply::fresh("page")).await;
    let file = |name: &str| site.gateway.dir().join(name);
    let renew = async || {
        let new = site.authority.server(&[NAME]);
        rename_over(&file("a.crt"), &new.pem);
        rename_over(&file("a.key"), &new.key);
        shown(&site.gateway, NAME, &new, SOON).await;
    };
    for broken in ["ca.pem", "clients.crl"] {
        let content = fs::read_to_string(file(broken)).unwrap();
        let before = failures(&site.gateway).await;
        fs::remove_file(file(broken)).unwrap();
        one_more_failure(&site.gateway, before).await;
        renew().await;
        let before = failures(&site.gateway).await;
        fs::write(file(broken), "nothing of use").unwrap();
        one_more_failure(&site.gateway, before).await;
        renew().await;
        // Whoever opens a pipe waits for somebody who writes.
        let before = failures(&site.gateway).await;
        named_pipe::put(&file(broken));
        one_more_failure(&site.gateway, before).await;
        renew().await;
        // The rules of before hold.
        let stranger = Authority::new("strangers").client("me");
        let refused = site.client().anew().showing(&stranger).status(NAME).await;
        assert!(refused.is_err(), "{refused:?}");
        rename_over(&file(broken), &content);
        renew().await;
        let known = site.client().anew().showing(&clients.client("me"));
        assert_eq!(known.status(NAME).await, Ok(200));
    }
}

#[tokio::test]
async fn a_folder_that_is_gone_is_told_once() {
    let authority = Authority::new("authority");
    let (gateway, [_, kube], _origin) = gateway(&authority, "50ms").await;
    let before = failures(&gateway).await;
    fs::remove_dir_all(gateway.dir().join("certs")).unwrap();
    // The folder, and the pair in it.
    gateway
        .metric_until(FAILURES, &[], |now| now == before + 2.0)
        .await;
    // Twenty looks later.
    passed(Instant::now(), Duration::from_secs(1)).await;
    assert_eq!(failures(&gateway).await, before + 2.0);
    shown(&gateway, KUBE, &kube, SOON).await;
}

#[tokio::test]
async fn new_pairs_in_a_folder_are_found() {
    let authority = Authority::new("authority");
    let (gateway, [plain, _], _origin) = gateway(&authority, "50ms").await;
    let added = authority.server(&["added.test"]);
    let folder = gateway.dir().join("certs");
    fs::write(folder.join("added.crt"), &added.pem).unwrap();
    fs::write(folder.join("added.key"), &added.key).unwrap();
    let client = TlsClient::new(gateway.address, "added.test");
    e2e::wait::wait_for("it is found", SOON, || async {
        let connection = client.connect().await.ok()?;
        (connection.certificate() == added.der).then_some(())
    })
    .await;
    shown(&gateway, PLAIN, &plain, SOON).await;
}

#[tokio::test]
async fn the_end_of_each_certificate_is_a_metric() {
    let site = HttpsSite::start("reload_interval: 50ms").await;
    let name = "lamina_tls_certificate_not_after_seconds";
    let file: PathBuf = site.gateway.dir().join("a.crt");
    let labels = [("certificate", file.to_str().unwrap())];
    let day = Duration::from_secs(86_400);
    for days in [30, 7] {
        let end = SystemTime::now() + days * day;
        let new = site.authority.make(&Order::server(&[NAME]).until(end));
        rename_over(&file, &new.pem);
        rename_over(&file.with_extension("key"), &new.key);
        let end = end
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        site.gateway
            .metric_until(name, &labels, |at| (at - end).abs() <= 1.0)
            .await;
    }
    let scrape = site.gateway.scrape().await;
    let series = scrape.0.iter().filter(|sample| sample.name == name).count();
    assert_eq!(series, 1);
}
