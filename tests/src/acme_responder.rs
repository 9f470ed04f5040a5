//! A certificate authority of our own, for what `pebble` does not do: refusals with `Retry-After`,
//! renewal windows (RFC 9773), and answers that never come. It verifies no signature and no name:
//! every challenge is well at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, IsCa, Issuer, KeyPair, SerialNumber,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A running authority.
pub struct AcmeResponder {
    address: SocketAddr,
    shared: Arc<Shared>,
    dir: TempDir,
    accepting: JoinHandle<()>,
}

/// How it behaves; can be changed while it runs.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// How new orders are refused; none if they are taken.
    pub refuses: Option<OrderRefusal>,
    /// The window that it suggests, in seconds from now; none if it has no renewal information.
    pub window: Option<(i64, i64)>,
    /// What is asked at this first part of a path is done, and nobody hears of it.
    pub hangs_at: Option<&'static str>,
    /// Whether an account has shown before that names are its own.
    pub proof: NameProof,
}

/// Whether an account has shown before that names are its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NameProof {
    /// It has: orders are ready at once.
    #[default]
    Earlier,
    /// Each order needs it. Challenges of a kind that nobody knows are offered first.
    Needed,
}

/// How new orders are refused.
#[derive(Clone, Copy, Debug)]
pub enum OrderRefusal {
    /// By `rateLimited`, with so many seconds in `Retry-After`.
    RateLimited(u64),
    /// By 503 with so many seconds in `Retry-After`, if any.
    Unavailable(Option<u64>),
    /// By `unauthorized`, and only those that say what they replace: another account had it.
    OtherAccount,
}

impl OrderRefusal {
    fn answer(self) -> Answer {
        let (status, kind, detail, seconds) = match self {
            Self::RateLimited(seconds) => (429, "rateLimited", "too many orders", Some(seconds)),
            Self::Unavailable(seconds) => (503, "serverInternal", "it is down", seconds),
            Self::OtherAccount => (403, "unauthorized", "another account replaces it", None),
        };
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        let problem = json!({"type": kind, "detail": detail});
        let seconds = seconds.map(|seconds| seconds.to_string());
        let fields = seconds.iter().map(|seconds| ("retry-after", &**seconds));
        said(status, problem, &fields.collect::<Vec<_>>())
    }
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    orders: Mutex<Vec<OrderAtResponder>>,
    refusals: Mutex<Vec<Instant>>,
    /// Requests that got no answer.
    hung: AtomicUsize,
    authority: Issuer<'static, KeyPair>,
    root: Certificate,
    base: String,
}

/// An order, as the authority knows it.
#[derive(Clone, Debug, Default)]
pub struct OrderAtResponder {
    pub names: Vec<String>,
    /// The certificate that the new one takes the place of.
    pub replaces: Option<String>,
    /// The profile that the certificate has.
    pub profile: Option<String>,
    /// The kinds of the challenges that the client says to have answered.
    pub answered: Vec<String>,
    chain: Option<String>,
}

impl AcmeResponder {
    pub async fn start(behaviour: Behaviour) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "responder");
        let root = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), root.pem()).unwrap();
        let authority = Issuer::new(params, key);
        let server_key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let server = server.signed_by(&server_key, &authority).unwrap();
        let config = ServerConfig::builder_with_provider(lamina_base::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![server.der().clone()],
                PrivateKeyDer::try_from(server_key.serialize_der()).unwrap(),
            )
            .unwrap();
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            orders: Mutex::default(),
            refusals: Mutex::default(),
            hung: AtomicUsize::new(0),
            authority,
            root,
            base: format!("https://{address}"),
        });
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accepting = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self {
            address,
            shared,
            dir,
            accepting,
        }
    }

    /// The YAML of an issuer that is this one.
    pub fn issuer(&self) -> String {
        self.issuer_with("")
    }

    /// The YAML of an issuer that is this one, with another one as its staging environment.
    pub fn issuer_with_staging(&self, staging: &Self) -> String {
        let file = self.dir.path().join("ca.pem");
        let both = [self, staging].map(|one| one.shared.root.pem());
        std::fs::write(file, both.concat()).unwrap();
        self.issuer_with(&format!(", staging: \"https://{}/dir\"", staging.address))
    }

    /// The YAML of an issuer that is this one; `more` are further keys.
    pub fn issuer_with(&self, more: &str) -> String {
        format!(
            "{{directory: \"https://{}/dir\", ca_file: \"{}\", agree_to_terms: true{more}}}",
            self.address,
            self.dir.path().join("ca.pem").display()
        )
    }

    /// From now on it behaves like this.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// The orders that it has taken.
    pub fn orders(&self) -> Vec<OrderAtResponder> {
        self.shared.orders.lock().unwrap().clone()
    }

    /// How many orders it has refused.
    pub fn refusals(&self) -> usize {
        self.refused_at().len()
    }

    /// When it has refused orders.
    pub fn refused_at(&self) -> Vec<Instant> {
        self.shared.refusals.lock().unwrap().clone()
    }

    /// How many requests it has let wait for ever.
    pub fn hung(&self) -> usize {
        self.shared.hung.load(SeqCst)
    }

    /// The root that its certificates go back to.
    pub fn root(&self) -> CertificateDer<'static> {
        self.shared.root.der().clone()
    }
}

impl Drop for AcmeResponder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let answer = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(shared.answer(request).await) }
            });
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let payload = payload(&body.collect().await.unwrap().to_bytes());
        let path = parts.uri.path().to_owned();
        let words: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let number = || words[1].parse::<usize>().unwrap();
        let answer = match (&parts.method, words[0]) {
            (_, "dir") => self.directory(),
            (_, "nonce") => said(200, json!({}), &[]),
            (_, "account") => self.at("account/1", json!({"status": "valid"}), 201),
            (_, "new-order") => self.new_order(&payload),
            (&Method::POST, "order") => said(200, self.order(number()), &[]),
            (_, "authz") => said(200, self.authorization(number()), &[]),
            (_, "challenge") => self.answer_of_challenge(number(), words[2]),
            (_, "finalize") => self.finalize(number(), &payload),
            (_, "cert") => self.certificate(number()),
            (&Method::GET, "renewal") => self.renewal(),
            _ => said(
                404,
                json!({"type": "urn:ietf:params:acme:error:malformed"}),
                &[],
            ),
        };
        let hangs_at = self.behaviour.lock().unwrap().hangs_at;
        if hangs_at == Some(words[0]) {
            self.hung.fetch_add(1, SeqCst);
            std::future::pending::<()>().await;
        }
        answer
    }

    fn directory(&self) -> Answer {
        let url = |name: &str| format!("{}/{name}", self.base);
        let mut directory = json!({
            "newNonce": url("nonce"),
            "newAccount": url("account"),
            "newOrder": url("new-order"),
            "revokeCert": url("revoke"),
            "meta": {"profiles": {"classic": "the usual one", "shortlived": "for six days"}},
        });
        if self.behaviour.lock().unwrap().window.is_some() {
            directory["renewalInfo"] = url("renewal").into();
        }
        said(200, directory, &[])
    }

    fn at(&self, place: &str, body: Value, status: u16) -> Answer {
        let location = format!("{}/{place}", self.base);
        said(status, body, &[("location", &location)])
    }

    fn new_order(&self, payload: &Value) -> Answer {
        let refuses = self.behaviour.lock().unwrap().refuses;
        let is_refused = |refusal: &OrderRefusal| {
            !matches!(refusal, OrderRefusal::OtherAccount) || payload["replaces"].is_string()
        };
        if let Some(refusal) = refuses.filter(is_refused) {
            self.refusals.lock().unwrap().push(Instant::now());
            return refusal.answer();
        }
        let names = payload["identifiers"].as_array().unwrap().iter();
        let order = OrderAtResponder {
            names: names
                .map(|name| name["value"].as_str().unwrap().to_owned())
                .collect(),
            replaces: payload["replaces"].as_str().map(str::to_owned),
            profile: payload["profile"].as_str().map(str::to_owned),
            ..OrderAtResponder::default()
        };
        let mut orders = self.orders.lock().unwrap();
        orders.push(order);
        let number = orders.len() - 1;
        drop(orders);
        self.at(&format!("order/{number}"), self.order(number), 201)
    }

    fn is_proved(&self, order: &OrderAtResponder) -> bool {
        let proof = self.behaviour.lock().unwrap().proof;
        proof == NameProof::Earlier || order.answered.iter().any(|kind| kind == "http-01")
    }

    fn order(&self, number: usize) -> Value {
        let orders = self.orders.lock().unwrap();
        let order = &orders[number];
        let status = match (&order.chain, self.is_proved(order)) {
            (Some(_), _) => "valid",
            (None, true) => "ready",
            (None, false) => "pending",
        };
        let mut told = json!({
            "status": status,
            "authorizations": [format!("{}/authz/{number}", self.base)],
            "finalize": format!("{}/finalize/{number}", self.base),
        });
        if order.chain.is_some() {
            told["certificate"] = format!("{}/cert/{number}", self.base).into();
        }
        if let Some(replaces) = &order.replaces {
            told["replaces"] = replaces.as_str().into();
        }
        told
    }

    fn authorization(&self, number: usize) -> Value {
        let order = self.orders.lock().unwrap()[number].clone();
        let status = if self.is_proved(&order) {
            "valid"
        } else {
            "pending"
        };
        let mut strange = self.challenge(number, "new-99", "pending");
        strange.as_object_mut().unwrap().remove("token");
        strange["issuer-domain-names"] = json!(["a.test", 7, null]);
        json!({
            "status": status,
            "identifier": {"type": "dns", "value": order.names[0]},
            "challenges": [
                strange,
                self.challenge(number, "other-01", "pending"),
                self.challenge(number, "http-01", status),
            ],
        })
    }

    fn challenge(&self, number: usize, kind: &str, status: &str) -> Value {
        json!({
            "type": kind,
            "url": format!("{}/challenge/{number}/{kind}", self.base),
            "token": format!("token-{number}"),
            "status": status,
        })
    }

    /// The client says that the challenge can be looked at.
    fn answer_of_challenge(&self, number: usize, kind: &str) -> Answer {
        let mut orders = self.orders.lock().unwrap();
        orders[number].answered.push(kind.to_owned());
        drop(orders);
        said(200, self.challenge(number, kind, "valid"), &[])
    }

    fn finalize(&self, number: usize, payload: &Value) -> Answer {
        let request = payload["csr"].as_str().unwrap();
        let request = BASE64_URL_SAFE_NO_PAD.decode(request).unwrap();
        let request = CertificateSigningRequestDer::from(request);
        let mut wanted = CertificateSigningRequestParams::from_der(&request).unwrap();
        wanted.params.use_authority_key_identifier_extension = true;
        let serial = u64::try_from(number).unwrap() + 1_000;
        wanted.params.serial_number = Some(SerialNumber::from(serial));
        let certificate = wanted.signed_by(&self.authority).unwrap();
        self.orders.lock().unwrap()[number].chain = Some(certificate.pem());
        said(200, self.order(number), &[])
    }

    fn certificate(&self, number: usize) -> Answer {
        let chain = self.orders.lock().unwrap()[number].chain.clone();
        let mut response = said(200, json!({}), &[]);
        *response.body_mut() = Full::from(chain.unwrap());
        response
    }

    fn renewal(&self) -> Answer {
        let Some((start, end)) = self.behaviour.lock().unwrap().window else {
            return said(404, json!({}), &[]);
        };
        let now = std::time::SystemTime::now();
        let at = |offset: i64| {
            let span = std::time::Duration::from_secs(offset.unsigned_abs());
            let time = if offset < 0 { now - span } else { now + span };
            rfc3339(time)
        };
        let window = json!({"suggestedWindow": {"start": at(start), "end": at(end)}});
        said(200, window, &[("retry-after", "3600")])
    }
}

/// A time as RFC 3339 has it, by the form of HTTP's dates.
fn rfc3339(time: std::time::SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = httpdate::fmt_http_date(time);
    let words: Vec<_> = text.split(' ').collect();
    let month = MONTHS.iter().position(|name| *name == words[2]).unwrap() + 1;
    format!("{}-{month:02}-{}T{}Z", words[3], words[1], words[4])
}

/// The payload of a signed request; empty where there is none.
fn payload(body: &[u8]) -> Value {
    let signed: Value = serde_json::from_slice(body).unwrap_or_default();
    let payload = signed["payload"].as_str().unwrap_or_default();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice(&payload).unwrap_or_default()
}

fn said(status: u16, body: Value, fields: &[(&str, &str)]) -> Answer {
    let mut response = Response::builder()
        .status(status)
        .header("replay-nonce", "nonce");
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(Full::from(body.to_string())).unwrap()
}
