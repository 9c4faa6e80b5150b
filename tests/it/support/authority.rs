//! A certificate authority of a test's own, and what it signs.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SigningKey as _};

/// An authority; its files lie in a directory.
pub struct Authority {
    directory: PathBuf,
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
}

impl Authority {
    /// Makes one, with its certificate in `NAME.crt`.
    pub fn new(directory: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::create_dir_all(directory).expect("a directory");
        std::fs::write(directory.join(format!("{name}.crt")), certificate.pem()).expect("a file");
        Self {
            directory: directory.to_owned(),
            der: certificate.der().to_vec(),
            params,
            key,
        }
    }

    /// Signs a certificate for 127.0.0.1, for servers and clients, and returns the paths of `NAME.cert` and `NAME.key`.
    pub fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        self.sign_with(name, "127.0.0.1", |_| {})
    }

    /// Signs one for another host, or with something else about it.
    pub fn sign_with(&self, name: &str, host: &str, change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
        change(&mut params);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let paths = (
            self.directory.join(format!("{name}.cert")),
            self.directory.join(format!("{name}.key")),
        );
        std::fs::write(&paths.0, certificate.pem()).expect("a file");
        std::fs::write(&paths.1, key.serialize_pem()).expect("a file");
        paths
    }

    /// Returns a JSON web token of these claims, as registries check them.
    pub fn token(&self, claims: &serde_json::Value) -> String {
        let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let chain = base64::engine::general_purpose::STANDARD.encode(&self.der);
        let header = serde_json::json!({"typ": "JWT", "alg": "ES256", "x5c": [chain]});
        let text = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = self.key.sign(text.as_bytes()).expect("a signature");
        format!("{text}.{}", encode(&fixed(&signature)))
    }
}

/// Returns the two numbers of an ASN.1 signature of P-256, 32 bytes each.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut fixed = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let (length, number) = (usize::from(rest[1]), &rest[2..]);
        let (number, after) = number.split_at(length);
        let number = &number[number.len().saturating_sub(32)..];
        fixed.extend(std::iter::repeat_n(0, 32 - number.len()));
        fixed.extend_from_slice(number);
        rest = after;
    }
    fixed
}
