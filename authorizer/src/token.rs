//! A bearer token from its text to claims that may be believed: a JWT in a JWS (RFC 7519, RFC 7515), read as strictly as
//! RFC 8725 asks and then some.
//!
//! [`UnverifiedToken`] yields only what is needed to find a key; everything else comes out of [`UnverifiedToken::verify`].
//! Whatever is wrong, the client is told the same; [`Refusal`] is for the log. Not here: what the claims allow
//! ([`crate::caller`]).

use std::fmt;

use bulkhead_core::time::Timestamp;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::issuer::{Algorithm, Issuer, TokenUse};
use crate::json;
use crate::key::{VerificationKey, is_key_id};

/// The longest token that is looked at, in bytes. Longer ones cost the sender more than us.
pub const MAX_TOKEN: usize = 8 * 1024;

/// How far ahead of ours an issuer's clock may run, in seconds: `nbf` and `iat` may lie that much in the future.
///
/// `exp` has no such grace. The handlers compare the token's expiry once more, because the gateway caches our answer, and
/// the two must agree: with grace here and none there, a token would be let in and then refused; with grace in both, an
/// expired token would buy that much more time at each.
pub const LEEWAY_SECS: i64 = 30;

/// The longest life that a token may have been given, in seconds. A token that is valid for years is a password.
pub const MAX_LIFETIME_SECS: i64 = 24 * 60 * 60;

/// The last second of the year 9999: what lies beyond is no date but an overflow waiting for one.
const MAX_NUMERIC_DATE: f64 = 253_402_300_799.0;

/// Header parameters that change how a token must be read (RFC 7515 section 4.1.11, RFC 7797, RFC 7516) or that have no
/// business in one. A reader that does not implement `crit` must refuse it; libraries overlook it.
const REFUSED_HEADERS: [&str; 5] = ["crit", "b64", "zip", "enc", "cty"];

/// What a token may call itself, if it does (RFC 7519 section 5.1, RFC 9068 section 2.1).
const TYPES: [&str; 2] = ["JWT", "at+jwt"];

/// Why a request has no verified token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no `Authorization` header, or nothing in it.
    #[error("token missing")]
    Missing,
    /// There are several, or their two forms in the event differ.
    #[error("token ambiguous")]
    Ambiguous,
    /// The header does not say `Bearer` and a token.
    #[error("scheme not bearer")]
    Scheme,
    /// It is longer than [`MAX_TOKEN`].
    #[error("token too long")]
    TooLong,
    /// It is not three parts in base64url whose first two are JSON objects.
    #[error("token malformed")]
    Malformed,
    /// The named header parameter is missing, wrong or unwanted.
    #[error("header {0} refused")]
    Header(&'static str),
    /// The named claim is missing, wrong or out of its time.
    #[error("claim {0} refused")]
    Claim(&'static str),
    /// No issuer of that name is configured.
    #[error("issuer unknown")]
    IssuerUnknown,
    /// The issuer has no usable key of that id.
    #[error("key unknown")]
    KeyUnknown,
    /// The signature is not that key's over that text.
    #[error("signature wrong")]
    Signature,
}

/// A token whose shape is right and of which nothing else is known.
///
/// **Nothing in it may be believed.** It says which issuer and key to try; anybody could have written it.
pub struct UnverifiedToken<'a> {
    /// Header and payload as they were signed.
    signed: &'a str,
    signature: &'a str,
    algorithm: Algorithm,
    key_id: String,
    claims: Map<String, Value>,
}

impl fmt::Debug for UnverifiedToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnverifiedToken")
    }
}

impl<'a> UnverifiedToken<'a> {
    /// Reads a token's compact serialization.
    ///
    /// # Errors
    /// It is too long, not of the form, or its header asks for something that we do not do.
    pub fn parse(text: &'a str) -> Result<Self, Refusal> {
        if text.len() > MAX_TOKEN {
            return Err(Refusal::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        // Also refuses a fourth part, padding, blanks and bits that say nothing: each token has one spelling.
        let part = |text: &str| {
            let bytes = BASE64URL_NOPAD
                .decode(text.as_bytes())
                .map_err(|_| Refusal::Malformed)?;
            if bytes.is_empty() {
                Err(Refusal::Malformed)
            } else {
                Ok(bytes)
            }
        };
        let header = json::object(&part(header)?).ok_or(Refusal::Malformed)?;
        let claims = json::object(&part(payload)?).ok_or(Refusal::Malformed)?;
        part(signature)?;

        for name in REFUSED_HEADERS {
            if header.contains_key(name) {
                return Err(Refusal::Header(name));
            }
        }
        let text = |name: &'static str| header.get(name).and_then(Value::as_str).ok_or(Refusal::Header(name));
        // Other types are made for other readers: a logout token is signed as well (RFC 8725, section 3.11).
        if header.contains_key("typ")
            && !TYPES
                .iter()
                .any(|typ| text("typ").is_ok_and(|t| t.eq_ignore_ascii_case(typ)))
        {
            return Err(Refusal::Header("typ"));
        }
        let algorithm = Algorithm::parse(text("alg")?).ok_or(Refusal::Header("alg"))?;
        let key_id = text("kid")?;
        if !is_key_id(key_id) {
            return Err(Refusal::Header("kid"));
        }
        Ok(Self {
            signed,
            signature,
            algorithm,
            key_id: key_id.to_owned(),
            claims,
        })
    }

    /// The issuer that the token names.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// The key that the token names.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Believes the token if `key`, which must be one of `issuer`'s, signed it and its claims fit the issuer's entry.
    ///
    /// # Errors
    /// Something does not fit.
    pub fn verify(self, issuer: &Issuer, key: &VerificationKey, now: Timestamp) -> Result<VerifiedClaims, Refusal> {
        if !issuer.algorithms.contains(&self.algorithm) || key.algorithm() != self.algorithm {
            return Err(Refusal::Header("alg"));
        }
        if !key.verifies(self.signed.as_bytes(), self.signature) {
            return Err(Refusal::Signature);
        }
        let text = |name: &'static str| {
            self.claims
                .get(name)
                .and_then(Value::as_str)
                .ok_or(Refusal::Claim(name))
        };
        if text("iss")? != issuer.name {
            return Err(Refusal::Claim("iss"));
        }
        let subject = text("sub")?;
        if subject.is_empty() {
            return Err(Refusal::Claim("sub"));
        }
        let expiry = expiry(&self.claims, now)?;
        match issuer.token_use {
            None => audience(&self.claims, issuer)?,
            Some(kind) => {
                if text("token_use")? != kind.as_str() {
                    return Err(Refusal::Claim("token_use"));
                }
                match kind {
                    TokenUse::Id => audience(&self.claims, issuer)?,
                    TokenUse::Access => {
                        if !issuer.client_ids.contains(text("client_id")?) {
                            return Err(Refusal::Claim("client_id"));
                        }
                        if !issuer.audiences.is_empty() {
                            audience(&self.claims, issuer)?;
                        }
                    }
                }
            }
        }
        Ok(VerifiedClaims {
            subject: subject.to_owned(),
            expiry,
            claims: self.claims,
        })
    }
}

/// What a trusted issuer says of somebody.
#[derive(Debug)]
pub struct VerifiedClaims {
    subject: String,
    expiry: Timestamp,
    claims: Map<String, Value>,
}

impl VerifiedClaims {
    /// Whom the token is about, in the issuer's words.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// When the token expires; it lies in the future.
    pub fn expiry(&self) -> Timestamp {
        self.expiry
    }

    /// Any claim.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }
}

/// Checks the claims about time and gives the token's expiry.
fn expiry(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, Refusal> {
    let exp = numeric_date(claims, "exp")?.ok_or(Refusal::Claim("exp"))?.floor();
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds of any date that we accept are exact in a double"
    )]
    let now_seconds = now.as_unix() as f64;
    let (leeway, lifetime) = (LEEWAY_SECS as f64, MAX_LIFETIME_SECS as f64);
    // "on or after which the JWT must not be accepted" (RFC 7519, section 4.1.4)
    if exp <= now_seconds {
        return Err(Refusal::Claim("exp"));
    }
    if numeric_date(claims, "nbf")?.is_some_and(|nbf| nbf > now_seconds + leeway) {
        return Err(Refusal::Claim("nbf"));
    }
    let issued = numeric_date(claims, "iat")?;
    if issued.is_some_and(|iat| iat > now_seconds + leeway) {
        return Err(Refusal::Claim("iat"));
    }
    if exp - issued.unwrap_or(now_seconds) > lifetime {
        return Err(Refusal::Claim("exp"));
    }
    Ok(Timestamp::from_unix(exp as i64))
}

/// A NumericDate (RFC 7519, section 2): a number, perhaps with a fraction, of a second that a calendar has.
fn numeric_date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    match value.as_f64() {
        Some(seconds) if (0.0..=MAX_NUMERIC_DATE).contains(&seconds) => Ok(Some(seconds)),
        _ => Err(Refusal::Claim(name)),
    }
}

/// Checks that the token was made for us: one string, or a list of strings that holds one of ours.
fn audience(claims: &Map<String, Value>, issuer: &Issuer) -> Result<(), Refusal> {
    let ours = |text: &str| issuer.audiences.contains(text);
    let fits = match claims.get("aud") {
        Some(Value::String(audience)) => ours(audience),
        Some(Value::Array(audiences)) => {
            audiences.iter().all(Value::is_string) && audiences.iter().filter_map(Value::as_str).any(ours)
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(Refusal::Claim("aud")) }
}

/// Foreign text as it may stand in a log line: escaped, and cut at 256 characters.
pub fn shown(text: &str) -> String {
    text.chars().take(256).flat_map(char::escape_debug).collect()
}

/// What a log line may say of a token: the first eight hexadecimal digits of its SHA-256.
pub fn digest(text: &str) -> String {
    HEXLOWER.encode(Sha256::digest(text).get(..4).unwrap_or_default())
}

/// Checks that signatures can be checked at all: the JWT library panics at first use when it was built with no
/// cryptography or with two, and a function that can't verify must not start.
///
/// # Errors
/// A good signature is refused, or a bad one taken. The examples are those of RFC 7515, appendices A.2 and A.3.
pub fn self_test() -> Result<(), SelfTestError> {
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap_or_default();
    let rsa = VerificationKey::rsa(&decode(example::N), &[1, 0, 1]);
    let ec = VerificationKey::p256(&decode(example::X), &decode(example::Y));
    let holds = |key: Option<VerificationKey>, signed: String, signature: &str| {
        key.is_some_and(|key| {
            key.verifies(signed.as_bytes(), signature) && !key.verifies(format!("{signed}A").as_bytes(), signature)
        })
    };
    if !holds(
        rsa,
        format!("eyJhbGciOiJSUzI1NiJ9.{}", example::PAYLOAD),
        example::RS256,
    ) {
        return Err(SelfTestError("RS256"));
    }
    if !holds(ec, format!("eyJhbGciOiJFUzI1NiJ9.{}", example::PAYLOAD), example::ES256) {
        return Err(SelfTestError("ES256"));
    }
    Ok(())
}

/// Signatures of the named algorithm can't be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} self-test failed")]
pub struct SelfTestError(&'static str);

/// RFC 7515, appendices A.2 and A.3.
mod example {
    pub(super) const PAYLOAD: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    pub(super) const N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0B\
        m4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQO\
        S-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91\
        kzk2PAcDTW9gb54h4FRWyuXpoQ";
    pub(super) const RS256: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O\
        8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB\
        _eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywl\
        VmtVrBp0igcN_IoypGlUPQGe77Rw";
    pub(super) const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    pub(super) const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
    pub(super) const ES256: &str =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
}

#[cfg(test)]
mod tests;
