//! What this crate's tests are made of: keys that are made once a process, tokens, a clock that is set by hand.

pub(crate) mod server;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use bulkhead_core::config::Environment;
use bulkhead_core::time::{Clock, Timestamp};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value, json};

use crate::issuer::{Issuer, Issuers, VARIABLE};
use crate::key::VerificationKey;

pub(crate) const ISSUER: &str = "https://issuer.example.com";
pub(crate) const NOW: Timestamp = Timestamp::from_unix(1_767_225_600);
pub(crate) const METHOD_ARN: &str = "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/live/POST/genai/query";

/// A clock that only moves when it is told to.
#[derive(Clone)]
pub(crate) struct FakeClock {
    start: Timestamp,
    base: Instant,
    passed: Arc<Mutex<Duration>>,
}

impl FakeClock {
    pub(crate) fn at(start: Timestamp) -> Self {
        Self {
            start,
            base: Instant::now(),
            passed: Arc::default(),
        }
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.passed.lock().unwrap() += by;
    }

    pub(crate) fn clock(&self) -> Clock {
        let this = self.clone();
        Clock::from_fn(move || {
            let passed = *this.passed.lock().unwrap();
            let wall = time::OffsetDateTime::from_unix_timestamp(this.start.as_unix()).unwrap() + passed;
            (wall, this.base + passed)
        })
    }
}

/// An RSA key pair of 2,048 bits.
pub(crate) struct RsaSigner(RsaKeyPair);

impl RsaSigner {
    pub(crate) fn new() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    /// One pair for most tests: making one takes a while.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<RsaSigner> = OnceLock::new();
        SHARED.get_or_init(Self::new)
    }

    pub(crate) fn components(&self) -> RsaPublicKeyComponents<Vec<u8>> {
        self.0.public_key().into()
    }

    pub(crate) fn jwk(&self, id: &str) -> Value {
        let public = self.components();
        json!({
            "kty": "RSA", "kid": id, "use": "sig", "alg": "RS256",
            "n": BASE64URL_NOPAD.encode(&public.n), "e": BASE64URL_NOPAD.encode(&public.e),
        })
    }

    pub(crate) fn key(&self) -> VerificationKey {
        let public = self.components();
        VerificationKey::rsa(&public.n, &public.e).unwrap()
    }

    pub(crate) fn sign_with(&self, encoding: &'static dyn aws_lc_rs::signature::RsaEncoding, signed: &[u8]) -> String {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(encoding, &SystemRandom::new(), signed, &mut signature)
            .unwrap();
        BASE64URL_NOPAD.encode(&signature)
    }

    pub(crate) fn sign(&self, signed: &[u8]) -> String {
        self.sign_with(&RSA_PKCS1_SHA256, signed)
    }

    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(header.to_string(), claims.to_string())
    }

    /// A token whose parts are texts that no serializer would write.
    pub(crate) fn token_of(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        let signed = signed(header, claims);
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{signature}")
    }
}

/// A key pair on P-256.
pub(crate) struct EcSigner(EcdsaKeyPair);

impl EcSigner {
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<EcSigner> = OnceLock::new();
        SHARED.get_or_init(|| Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()))
    }

    pub(crate) fn jwk(&self, id: &str) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "alg": "ES256",
            "x": BASE64URL_NOPAD.encode(x), "y": BASE64URL_NOPAD.encode(y),
        })
    }

    pub(crate) fn key(&self) -> VerificationKey {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        VerificationKey::p256(x, y).unwrap()
    }

    pub(crate) fn sign(&self, signed: &[u8]) -> String {
        BASE64URL_NOPAD.encode(self.0.sign(&SystemRandom::new(), signed).unwrap().as_ref())
    }

    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = signed(header.to_string(), claims.to_string());
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{signature}")
    }
}

/// Header and payload as they are signed.
pub(crate) fn signed(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_ref()),
        BASE64URL_NOPAD.encode(claims.as_ref())
    )
}

/// Stands for "leave this member out" in [`claims`] and [`change`].
pub(crate) fn absent() -> Value {
    json!({"absent": "absent"})
}

/// `object` with members set or left out.
pub(crate) fn change(object: Value, changes: &[(&str, Value)]) -> Value {
    let mut members: Map<String, Value> = object.as_object().unwrap().clone();
    for (name, value) in changes {
        if *value == absent() {
            members.remove(*name);
        } else {
            members.insert((*name).to_owned(), value.clone());
        }
    }
    Value::Object(members)
}

/// A good header.
pub(crate) fn header() -> Value {
    json!({"alg": "RS256", "kid": "rsa", "typ": "JWT"})
}

/// Good claims of an hour's life, with changes.
pub(crate) fn claims(changes: &[(&str, Value)]) -> Value {
    let good = json!({
        "iss": ISSUER, "sub": "alice", "aud": "bulkhead", "iat": NOW.as_unix(), "exp": NOW.as_unix() + 3600,
        "custom:tenant_id": "acme",
    });
    change(good, changes)
}

/// An issuer's entry that takes them, with changes.
pub(crate) fn entry(changes: &[(&str, Value)]) -> Value {
    let entry = json!({
        "issuer": ISSUER, "audiences": ["bulkhead"], "algorithms": ["RS256", "ES256"], "roles_claim": "roles",
        "groups_claim": "groups", "tenants": "*",
    });
    change(entry, changes)
}

pub(crate) fn issuers(entries: &[Value]) -> Issuers {
    let environment: Environment = [(VARIABLE, json!(entries).to_string())].into_iter().collect();
    Issuers::from_env(&environment).unwrap()
}

pub(crate) fn issuer_with(changes: &[(&str, Value)]) -> Issuer {
    issuers(&[entry(changes)]).find(ISSUER).unwrap().clone()
}

pub(crate) fn issuer() -> Issuer {
    issuer_with(&[])
}
