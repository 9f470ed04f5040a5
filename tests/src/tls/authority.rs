//! An authority of the test's own, with certificates for servers and clients, and lists of
//! those that it has revoked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, RsaKeySize, SerialNumber,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub pem: String,
    pub der: Vec<u8>,
    /// The private key as PEM.
    pub key: String,
    serial: u64,
}

/// The kind of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    P256,
    Rsa2048,
    Rsa4096,
}

/// A private key, which several certificates may be for.
pub struct Key(KeyPair);

impl Key {
    pub fn new(kind: KeyKind) -> Self {
        let key = match kind {
            KeyKind::P256 => KeyPair::generate(),
            KeyKind::Rsa2048 => {
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
            }
            KeyKind::Rsa4096 => {
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096)
            }
        };
        Self(key.unwrap())
    }
}

/// A certificate that is to be made.
#[derive(Clone, Debug)]
pub struct Order {
    names: Vec<String>,
    kind: KeyKind,
    from: SystemTime,
    to: SystemTime,
    client: bool,
}

impl Order {
    /// For a server with these names or addresses: P-256, valid now.
    pub fn server(names: &[&str]) -> Self {
        let now = SystemTime::now();
        Self {
            names: names.iter().map(ToString::to_string).collect(),
            kind: KeyKind::P256,
            from: now - DAY,
            to: now + 30 * DAY,
            client: false,
        }
    }

    /// For a client of this name.
    pub fn client(name: &str) -> Self {
        Self {
            client: true,
            ..Self::server(&[name])
        }
    }

    pub fn key(self, kind: KeyKind) -> Self {
        Self { kind, ..self }
    }

    /// Valid from this time on.
    pub fn since(self, from: SystemTime) -> Self {
        Self { from, ..self }
    }

    /// Valid up to this time.
    pub fn until(self, to: SystemTime) -> Self {
        Self { to, ..self }
    }

    /// Expired for an hour.
    pub fn expired(self) -> Self {
        self.until(SystemTime::now() - DAY / 24)
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::new(Vec::new()).unwrap();
        wanted.distinguished_name.push(DnType::CommonName, name);
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = wanted.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(wanted, key),
            pem,
        }
    }

    /// An authority that this one vouches for.
    pub fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::new(Vec::new()).unwrap();
        wanted.distinguished_name.push(DnType::CommonName, name);
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = wanted.signed_by(&key, &self.issuer).unwrap().pem();
        Self {
            issuer: Issuer::new(wanted, key),
            pem,
        }
    }

    /// A certificate for a server with these names or addresses.
    pub fn server(&self, names: &[&str]) -> Certificate {
        self.make(&Order::server(names))
    }

    /// A certificate for a client of this name.
    pub fn client(&self, name: &str) -> Certificate {
        self.make(&Order::client(name))
    }

    pub fn make(&self, order: &Order) -> Certificate {
        self.sign(order, &Key::new(order.kind))
    }

    /// The same for a key that is there.
    pub fn sign(&self, order: &Order, Key(key): &Key) -> Certificate {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let mut wanted = CertificateParams::new(order.names.clone()).unwrap();
        wanted.not_before = order.from.into();
        wanted.not_after = order.to.into();
        wanted.serial_number = Some(SerialNumber::from(serial));
        // Some clients verify nothing without it.
        wanted.use_authority_key_identifier_extension = true;
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        wanted.extended_key_usages = vec![match order.client {
            true => ExtendedKeyUsagePurpose::ClientAuth,
            false => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        let made = wanted.signed_by(key, &self.issuer).unwrap();
        Certificate {
            pem: made.pem(),
            der: made.der().to_vec(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// A list of revoked certificates, as PEM.
    pub fn revoke(&self, revoked: &[&Certificate]) -> String {
        self.revoke_until(revoked, SystemTime::now() + DAY)
    }

    /// The same, with the time at which another list is to follow.
    pub fn revoke_until(&self, revoked: &[&Certificate], next: SystemTime) -> String {
        let now = SystemTime::now();
        let revoked = revoked.iter().map(|certificate| RevokedCertParams {
            serial_number: SerialNumber::from(certificate.serial),
            revocation_time: (now - DAY / 24).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: (now - DAY).into(),
            next_update: next.into(),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}
