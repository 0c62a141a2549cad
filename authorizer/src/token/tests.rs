use aws_lc_rs::signature::{RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256};
use aws_lc_rs::{hmac, rand};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fixture::{self, EcSigner, ISSUER, NOW, RsaSigner, absent, change, claims, header, signed};

/// What becomes of a token at `NOW`, or some seconds later, whose issuer has the keys `rsa` and `ec`.
fn verdict_at(issuer: &Issuer, text: &str, later: i64) -> Result<Timestamp, Refusal> {
    let token = UnverifiedToken::parse(text)?;
    let key = match token.key_id() {
        "rsa" => RsaSigner::shared().key(),
        "ec" => EcSigner::shared().key(),
        _ => return Err(Refusal::KeyUnknown),
    };
    let now = Timestamp::from_unix(NOW.as_unix() + later);
    token.verify(issuer, &key, now).map(|claims| claims.expiry())
}

fn verdict(text: &str) -> Result<Timestamp, Refusal> {
    verdict_at(&fixture::issuer(), text, 0)
}

fn rsa(header: &Value, claims: &Value) -> String {
    RsaSigner::shared().token(header, claims)
}

fn good() -> String {
    rsa(&header(), &claims(&[]))
}

/// The verdict on a token whose header was changed before it was signed.
fn with_header(changes: &[(&str, Value)]) -> Result<Timestamp, Refusal> {
    verdict(&rsa(&change(header(), changes), &claims(&[])))
}

/// The verdict on a token whose claims were changed before it was signed.
fn with_claims(changes: &[(&str, Value)]) -> Result<Timestamp, Refusal> {
    verdict(&rsa(&header(), &claims(changes)))
}

fn refused(verdict: Result<Timestamp, Refusal>, refusal: Refusal, what: impl fmt::Display) {
    assert_eq!(verdict, Err(refusal), "{what}");
}

#[test]
fn good_tokens_verify() {
    assert_eq!(verdict(&good()), Ok(Timestamp::from_unix(NOW.as_unix() + 3600)));
    let ec = EcSigner::shared().token(&json!({"alg": "ES256", "kid": "ec"}), &claims(&[]));
    assert!(verdict(&ec).is_ok());
}

#[test]
fn the_self_test_passes() {
    assert_eq!(self_test(), Ok(()));
}

// Syntax.

#[test]
fn a_token_is_three_parts_in_base64url() {
    let good = good();
    let parts: Vec<&str> = good.split('.').collect();
    let [head, payload, signature] = parts[..] else {
        panic!("three parts")
    };
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        format!("{head}.{payload}"),
        format!("{head}.{payload}."),
        format!(".{payload}.{signature}"),
        format!("{head}..{signature}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{head}.{payload}.{signature}.{payload}.{head}"),
        format!("{head}=.{payload}.{signature}"),
        format!("{head}.{payload}=.{signature}"),
        format!("{good}="),
        format!("{good}=="),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{head} .{payload}.{signature}"),
        format!(
            "{head}.{payload}.{}",
            signature.replace('_', "/").replace('-', "+") + "/"
        ),
        format!("{good},{good}"),
        format!("{good} {good}"),
        format!("\"{good}\""),
        format!("{good}\u{0}"),
        format!("{head}.{payload}.{signature}é"),
        json!({"payload": payload, "protected": head, "signature": signature}).to_string(),
        json!({"payload": payload, "signatures": [{"protected": head, "signature": signature}]}).to_string(),
    ] {
        refused(verdict(&bad), Refusal::Malformed, &bad);
    }
}

#[test]
fn a_token_has_one_spelling() {
    // An ES256 signature is 64 bytes, 86 characters: four bits of the last one say nothing.
    let text = EcSigner::shared().token(&json!({"alg": "ES256", "kid": "ec"}), &claims(&[]));
    let (rest, last) = text.split_at(text.len() - 1);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = alphabet.iter().position(|c| *c == last.as_bytes()[0]).unwrap();
    for bits in 1..16 {
        let other = char::from(alphabet[(value & !15) | bits]);
        refused(verdict(&format!("{rest}{other}")), Refusal::Malformed, other);
    }
}

#[test]
fn a_long_token_is_refused_before_it_is_read() {
    let padded = |length: usize| rsa(&header(), &claims(&[("padding", json!("x".repeat(length)))]));
    let longest = (0..8000)
        .rev()
        .find(|length| padded_length(*length) <= MAX_TOKEN)
        .unwrap();
    assert!(verdict(&padded(longest)).is_ok());
    refused(verdict(&padded(longest + 3)), Refusal::TooLong, "one more");
    refused(verdict(&"A".repeat(10_000_000)), Refusal::TooLong, "ten million");
}

/// How long a padded token is, without signing it.
fn padded_length(length: usize) -> usize {
    let signed = signed(
        header().to_string(),
        claims(&[("padding", json!("x".repeat(length)))]).to_string(),
    );
    signed.len() + 1 + 342
}

#[test]
fn parts_are_strict_json_objects() {
    let (head, body) = (header().to_string(), claims(&[]).to_string());
    let signer = RsaSigner::shared();
    let inner = |text: &str| text.trim_start_matches('{').trim_end_matches('}').to_owned();
    let nested = |levels: usize| {
        format!(
            "{{{},\"x\":{}{}}}",
            inner(&body),
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    assert!(verdict(&signer.token_of(&head, nested(15))).is_ok());
    for bad in [
        "[]".to_owned(),
        "null".to_owned(),
        "\"x\"".to_owned(),
        "5".to_owned(),
        format!("{body}x"),
        format!("{body}{body}"),
        format!("\u{feff}{body}"),
        format!("{{{},\"iss\":{:?}}}", inner(&body), ISSUER),
        format!("{{{},\"\\u0069ss\":{:?}}}", inner(&body), ISSUER),
        format!("{{{},\"custom:tenant_id\":\"other\"}}", inner(&body)),
        format!("{{{},\"x\":{{\"a\":1,\"a\":1}}}}", inner(&body)),
        format!("{{{},\"x\":NaN}}", inner(&body)),
        format!("{{{},\"x\":1e999}}", inner(&body)),
        nested(16),
        nested(2600),
    ] {
        refused(verdict(&signer.token_of(&head, &bad)), Refusal::Malformed, &bad);
    }
    refused(
        verdict(&signer.token_of(&head, [body.as_bytes(), b"\xff"].concat())),
        Refusal::Malformed,
        "not UTF-8",
    );
    let invalid = [format!("{{{},\"x\":\"", inner(&body)).as_bytes(), b"\xff\"}"].concat();
    refused(
        verdict(&signer.token_of(&head, invalid)),
        Refusal::Malformed,
        "a string that is not UTF-8",
    );
    for bad in [
        format!("{head}x"),
        format!("{{{},\"alg\":\"RS256\"}}", inner(&head)),
        "[]".to_owned(),
    ] {
        refused(verdict(&signer.token_of(&bad, &body)), Refusal::Malformed, &bad);
    }
}

// Algorithm and key.

#[test]
fn an_algorithm_is_one_of_two_names() {
    for bad in [
        json!("none"),
        json!("None"),
        json!("NONE"),
        json!("nOnE"),
        json!(""),
        absent(),
        Value::Null,
        json!(5),
        json!(["RS256"]),
        json!({"name": "RS256"}),
        json!("rs256"),
        json!("RS256 "),
        json!(" RS256"),
        json!("RS256\0"),
        json!("RS384"),
        json!("RS512"),
        json!("PS256"),
        json!("ES384"),
        json!("ES256K"),
        json!("EdDSA"),
        json!("HS256"),
        json!("HS384"),
        json!("HS512"),
        json!("RSA-OAEP"),
        json!("dir"),
    ] {
        refused(with_header(&[("alg", bad.clone())]), Refusal::Header("alg"), &bad);
    }
}

#[test]
fn an_unsigned_token_is_none() {
    for alg in ["none", "None", "NONE", "", "RS256"] {
        let signed = signed(
            change(header(), &[("alg", json!(alg))]).to_string(),
            claims(&[]).to_string(),
        );
        refused(verdict(&format!("{signed}.")), Refusal::Malformed, alg);
        refused(verdict(&signed), Refusal::Malformed, alg);
    }
    let signed = signed(header().to_string(), claims(&[]).to_string());
    refused(verdict(&format!("{signed}.AA")), Refusal::Signature, "a byte");
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let public = RsaSigner::shared().components();
    let jwk = RsaSigner::shared().jwk("rsa").to_string();
    let spki = [b"\x30\x82".as_slice(), &public.n, &public.e].concat();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        data_encoding::BASE64.encode(&spki)
    );
    let secrets: [&[u8]; 8] = [
        &spki,
        pem.as_bytes(),
        jwk.as_bytes(),
        &public.n,
        &public.e,
        b"",
        b"rsa",
        ISSUER.as_bytes(),
    ];
    for (alg, algorithm) in [
        ("HS256", hmac::HMAC_SHA256),
        ("HS384", hmac::HMAC_SHA384),
        ("HS512", hmac::HMAC_SHA512),
    ] {
        for secret in secrets {
            let head = change(header(), &[("alg", json!(alg))]);
            let signed = signed(head.to_string(), claims(&[]).to_string());
            let tag = hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes());
            let tag = BASE64URL_NOPAD.encode(tag.as_ref());
            refused(verdict(&format!("{signed}.{tag}")), Refusal::Header("alg"), alg);
        }
    }
}

#[test]
fn a_key_decides_its_algorithm() {
    let (rsa_signer, ec_signer) = (RsaSigner::shared(), EcSigner::shared());
    let ec_header = json!({"alg": "ES256", "kid": "ec"});
    // The name of the other family, under either key and either signature.
    for (alg, kid) in [("RS256", "ec"), ("ES256", "rsa")] {
        let head = json!({"alg": alg, "kid": kid});
        refused(
            verdict(&rsa_signer.token(&head, &claims(&[]))),
            Refusal::Header("alg"),
            kid,
        );
        refused(
            verdict(&ec_signer.token(&head, &claims(&[]))),
            Refusal::Header("alg"),
            kid,
        );
    }
    refused(
        verdict(&rsa_signer.token(&ec_header, &claims(&[]))),
        Refusal::Signature,
        "RSA under EC",
    );
    refused(
        verdict(&ec_signer.token(&header(), &claims(&[]))),
        Refusal::Signature,
        "EC under RSA",
    );
    // What the issuer's entry does not list.
    let rs_only = fixture::issuer_with(&[("algorithms", json!(["RS256"]))]);
    let ec = ec_signer.token(&ec_header, &claims(&[]));
    refused(verdict_at(&rs_only, &ec, 0), Refusal::Header("alg"), "ES256");
    let es_only = fixture::issuer_with(&[("algorithms", json!(["ES256"]))]);
    refused(verdict_at(&es_only, &good(), 0), Refusal::Header("alg"), "RS256");
}

#[test]
fn keys_in_a_header_are_not_looked_at() {
    let mine = RsaSigner::new();
    for (name, value) in [
        ("jwk", mine.jwk("rsa")),
        ("jku", json!("https://evil.example.com/jwks")),
        ("x5u", json!("https://evil.example.com/cert")),
        ("x5c", json!(["MIIB"])),
        ("x5c", json!(5)),
    ] {
        let head = change(header(), &[(name, value)]);
        refused(verdict(&mine.token(&head, &claims(&[]))), Refusal::Signature, name);
        assert!(verdict(&rsa(&head, &claims(&[]))).is_ok(), "{name}");
    }
}

#[test]
fn a_key_id_is_a_text_that_is_only_compared() {
    for bad in [
        absent(),
        Value::Null,
        json!(""),
        json!(5),
        json!(["rsa"]),
        json!({"kid": "rsa"}),
        json!("k".repeat(257)),
        json!("rsa\n"),
        json!("rsa\0"),
        json!("\u{1b}[2J"),
        json!("\u{85}"),
    ] {
        refused(with_header(&[("kid", bad.clone())]), Refusal::Header("kid"), &bad);
    }
    for unknown in [
        json!("RSA"),
        json!("rsa "),
        json!("../../etc/passwd"),
        json!("' OR 1=1 --"),
        json!("https://evil.example.com/jwks"),
        json!("rsa/../ec"),
        json!("k".repeat(256)),
        json!("é".repeat(256)),
    ] {
        refused(with_header(&[("kid", unknown.clone())]), Refusal::KeyUnknown, &unknown);
    }
}

#[test]
fn what_changes_the_reading_of_a_token_is_refused() {
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", Value::Null),
        ("crit", json!("exp")),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("cty", json!("JWT")),
    ] {
        refused(with_header(&[(name, value)]), Refusal::Header(name), name);
    }
}

#[test]
fn tokens_made_for_other_readers_are_refused() {
    for good in [json!("JWT"), json!("jwt"), json!("at+jwt"), json!("AT+JWT"), absent()] {
        assert!(with_header(&[("typ", good.clone())]).is_ok(), "{good}");
    }
    for bad in [
        json!("logout+jwt"),
        json!("secevent+jwt"),
        json!("dpop+jwt"),
        json!("JWE"),
        json!("JOSE"),
        json!(""),
        json!("JWT "),
        json!(5),
        Value::Null,
        json!(["JWT"]),
    ] {
        refused(with_header(&[("typ", bad.clone())]), Refusal::Header("typ"), &bad);
    }
}

// Signature.

fn with_signature(signature: &[u8]) -> Result<Timestamp, Refusal> {
    verdict(&format!(
        "{}.{}",
        good().rsplit_once('.').unwrap().0,
        BASE64URL_NOPAD.encode(signature)
    ))
}

fn signature_of(text: &str) -> Vec<u8> {
    BASE64URL_NOPAD
        .decode(text.rsplit_once('.').unwrap().1.as_bytes())
        .unwrap()
}

#[test]
fn a_signature_that_is_off_by_anything_is_refused() {
    let good = signature_of(&good());
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(with_signature(&flipped), Refusal::Signature, bit);
    }
    let modulus = RsaSigner::shared().components().n;
    let mut one_less = modulus.clone();
    *one_less.last_mut().unwrap() -= 1;
    let (mut plus_modulus, mut carry) = (good.clone(), 0);
    for (digit, other) in plus_modulus.iter_mut().zip(&modulus).rev() {
        let sum = u16::from(*digit) + u16::from(*other) + carry;
        (*digit, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    if carry > 0 {
        plus_modulus.insert(0, 1);
    }
    let one = [vec![0; 255], vec![1]].concat();
    for (name, bad) in [
        ("truncated at the end", good[..255].to_vec()),
        ("truncated at the start", good[1..].to_vec()),
        ("half", good[..128].to_vec()),
        ("with a leading zero", [&[0], good.as_slice()].concat()),
        ("with a zero behind", [good.as_slice(), &[0]].concat()),
        ("twice", [good.as_slice(), &good].concat()),
        ("plus the modulus", plus_modulus),
        ("zero", vec![0; 256]),
        ("one", one),
        ("the modulus", modulus),
        ("the modulus less one", one_less),
        ("all ones", vec![255; 256]),
    ] {
        refused(with_signature(&bad), Refusal::Signature, name);
    }
}

#[test]
fn a_signature_of_another_kind_is_refused() {
    let signer = RsaSigner::shared();
    let signed = signed(header().to_string(), claims(&[]).to_string());
    let encodings: [(&str, &'static dyn aws_lc_rs::signature::RsaEncoding); 3] = [
        ("SHA-384", &RSA_PKCS1_SHA384),
        ("SHA-512", &RSA_PKCS1_SHA512),
        ("PSS", &RSA_PSS_SHA256),
    ];
    for (name, encoding) in encodings {
        let text = format!("{signed}.{}", signer.sign_with(encoding, signed.as_bytes()));
        refused(verdict(&text), Refusal::Signature, name);
    }
    let stranger = RsaSigner::new();
    refused(
        verdict(&stranger.token(&header(), &claims(&[]))),
        Refusal::Signature,
        "a stranger's",
    );
}

#[test]
fn parts_of_good_tokens_make_no_good_token() {
    let (one, two) = (good(), rsa(&header(), &claims(&[("sub", json!("bob"))])));
    let three = EcSigner::shared().token(&json!({"alg": "ES256", "kid": "ec"}), &claims(&[]));
    let tokens = [one, two, three];
    let parts: Vec<Vec<&str>> = tokens.iter().map(|token| token.split('.').collect()).collect();
    for (a, b, c) in itertools(3) {
        let mixed = format!("{}.{}.{}", parts[a][0], parts[b][1], parts[c][2]);
        assert_eq!(verdict(&mixed).is_ok(), tokens.contains(&mixed), "{a}{b}{c}");
    }
}

fn itertools(n: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..n * n * n).map(move |i| (i % n, i / n % n, i / n / n))
}

#[test]
fn every_change_of_one_byte_is_refused() {
    let good = good();
    let mut random = [0; 8];
    for position in 0..good.len() {
        rand::fill(&mut random).unwrap();
        for byte in random {
            let mut bytes = good.clone().into_bytes();
            bytes[position] = byte;
            if bytes == good.as_bytes() {
                continue;
            }
            // What is not UTF-8 can't be in an event.
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            assert!(verdict(&changed).is_err(), "position {position}, byte {byte}");
        }
    }
}

proptest! {
    #[test]
    fn a_changed_token_is_refused(position in 0.0..1.0_f64, insert in "\\PC{0,3}", remove in 0..4_usize) {
        let good = good();
        let at = (position * good.len() as f64) as usize;
        let end = (at + remove).min(good.len());
        let (start, rest) = good.split_at(at);
        let changed = format!("{start}{insert}{}", rest.split_at(end - at).1);
        prop_assume!(changed != good);
        prop_assert!(verdict(&changed).is_err());
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "(\\PC{0,40}|[A-Za-z0-9_-]{0,40}\\.){0,4}") {
        prop_assert!(verdict(&text).is_err());
    }
}

// Claims.

fn at(seconds: i64) -> Value {
    json!(NOW.as_unix() + seconds)
}

/// What is no NumericDate.
fn not_dates() -> Vec<Value> {
    vec![
        Value::Null,
        json!("1767229200"),
        json!(""),
        json!(true),
        json!([NOW.as_unix() + 60]),
        json!({"at": 1}),
        json!(-1),
        json!(-0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(253_402_300_800_i64),
    ]
}

#[test]
fn a_token_expires() {
    for (seconds, fits) in [(-3600, false), (-1, false), (0, false), (1, true), (3600, true)] {
        assert_eq!(
            with_claims(&[("exp", at(seconds)), ("iat", absent())]).is_ok(),
            fits,
            "{seconds}"
        );
    }
    for (later, fits) in [(0, true), (3599, true), (3600, false), (3601, false)] {
        assert_eq!(verdict_at(&fixture::issuer(), &good(), later).is_ok(), fits, "{later}");
    }
    refused(with_claims(&[("exp", absent())]), Refusal::Claim("exp"), "absent");
    refused(with_claims(&[("exp", json!(0))]), Refusal::Claim("exp"), "zero");
    for bad in not_dates() {
        refused(with_claims(&[("exp", bad.clone())]), Refusal::Claim("exp"), &bad);
    }
    // A fraction counts down: the context carries whole seconds, and a token must not outlive itself.
    let fraction = NOW.as_unix() as f64 + 60.75;
    assert_eq!(
        with_claims(&[("exp", json!(fraction))]),
        Ok(Timestamp::from_unix(NOW.as_unix() + 60))
    );
}

#[test]
fn a_token_is_not_from_the_future() {
    for claim in ["nbf", "iat"] {
        for (seconds, fits) in [
            (-3600, true),
            (0, true),
            (LEEWAY_SECS - 1, true),
            (LEEWAY_SECS, true),
            (LEEWAY_SECS + 1, false),
            (3600, false),
        ] {
            assert_eq!(with_claims(&[(claim, at(seconds))]).is_ok(), fits, "{claim} {seconds}");
        }
        assert!(with_claims(&[(claim, absent())]).is_ok());
        for bad in not_dates() {
            refused(with_claims(&[(claim, bad.clone())]), Refusal::Claim(claim), &bad);
        }
    }
}

#[test]
fn a_token_lives_a_day_at_most() {
    let day = MAX_LIFETIME_SECS;
    assert!(with_claims(&[("iat", at(0)), ("exp", at(day))]).is_ok());
    refused(
        with_claims(&[("iat", at(0)), ("exp", at(day + 1))]),
        Refusal::Claim("exp"),
        "a day and a second",
    );
    refused(
        with_claims(&[("iat", at(-3600)), ("exp", at(day))]),
        Refusal::Claim("exp"),
        "issued an hour ago",
    );
    refused(
        with_claims(&[("iat", absent()), ("exp", at(day + 1))]),
        Refusal::Claim("exp"),
        "issued whenever",
    );
}

#[test]
fn an_issuer_is_one_exact_name() {
    for bad in [
        absent(),
        Value::Null,
        json!(5),
        json!(""),
        json!([ISSUER]),
        json!(["https://evil.example.com", ISSUER]),
        json!({"iss": ISSUER}),
        json!(format!("{ISSUER}/")),
        json!("HTTPS://issuer.example.com"),
        json!("https://issuer.example.co"),
        json!("https://issuer.example.com.evil.example.com"),
        json!(format!("{ISSUER}\0")),
        json!(format!(" {ISSUER}")),
        json!("https://evil.example.com"),
        json!("http://issuer.example.com"),
    ] {
        refused(with_claims(&[("iss", bad.clone())]), Refusal::Claim("iss"), &bad);
        // Nothing is found by it either, so nothing is fetched.
        let text = rsa(&header(), &claims(&[("iss", bad)]));
        let token = UnverifiedToken::parse(&text).unwrap();
        assert!(
            token
                .issuer()
                .is_none_or(|name| fixture::issuers(&[fixture::entry(&[])]).find(name).is_none())
        );
    }
}

#[test]
fn an_audience_is_ours() {
    for good in [json!("bulkhead"), json!(["bulkhead"]), json!(["other", "bulkhead"])] {
        assert!(with_claims(&[("aud", good.clone())]).is_ok(), "{good}");
    }
    for bad in [
        absent(),
        Value::Null,
        json!(""),
        json!([]),
        json!({}),
        json!(5),
        json!(true),
        json!("other"),
        json!("bulkhea"),
        json!("bulkhead2"),
        json!("Bulkhead"),
        json!(" bulkhead"),
        json!("bulkhead "),
        json!("bulkhead,other"),
        json!("bulkhead other"),
        json!({"aud": "bulkhead"}),
        json!([["bulkhead"]]),
        json!(["bulkhead", 1]),
        json!(["bulkhead", null]),
        json!([{"aud": "bulkhead"}]),
        json!("*"),
    ] {
        refused(with_claims(&[("aud", bad.clone())]), Refusal::Claim("aud"), &bad);
    }
}

#[test]
fn a_subject_is_a_text() {
    for bad in [
        absent(),
        Value::Null,
        json!(""),
        json!(5),
        json!(["alice"]),
        json!({"sub": "alice"}),
    ] {
        refused(with_claims(&[("sub", bad.clone())]), Refusal::Claim("sub"), &bad);
    }
}

#[test]
fn cognitos_id_tokens_name_the_client_as_audience() {
    let issuer = fixture::issuer_with(&[("token_use", json!("id")), ("audiences", json!(["app"]))]);
    let verdict = |changes: &[(&str, Value)]| verdict_at(&issuer, &rsa(&header(), &claims(changes)), 0);
    let id = ("token_use", json!("id"));
    assert!(verdict(&[id.clone(), ("aud", json!("app"))]).is_ok());
    refused(
        verdict(std::slice::from_ref(&id)),
        Refusal::Claim("aud"),
        "another audience",
    );
    refused(
        verdict(&[id, ("aud", absent()), ("client_id", json!("app"))]),
        Refusal::Claim("aud"),
        "no audience",
    );
    for bad in [
        absent(),
        json!("access"),
        json!("ID"),
        json!(["id"]),
        json!(5),
        Value::Null,
    ] {
        refused(
            verdict(&[("token_use", bad.clone()), ("aud", json!("app"))]),
            Refusal::Claim("token_use"),
            &bad,
        );
    }
}

#[test]
fn cognitos_access_tokens_name_the_client_apart() {
    let entry = [
        ("token_use", json!("access")),
        ("client_ids", json!(["app"])),
        ("audiences", absent()),
    ];
    let issuer = fixture::issuer_with(&entry);
    let verdict = |changes: &[(&str, Value)]| verdict_at(&issuer, &rsa(&header(), &claims(changes)), 0);
    let (access, none) = (("token_use", json!("access")), ("aud", absent()));
    assert!(verdict(&[access.clone(), none.clone(), ("client_id", json!("app"))]).is_ok());
    for bad in [
        absent(),
        json!("other"),
        json!("App"),
        json!(["app"]),
        json!(5),
        Value::Null,
        json!(""),
    ] {
        let changes = [access.clone(), none.clone(), ("client_id", bad.clone())];
        refused(verdict(&changes), Refusal::Claim("client_id"), &bad);
    }
    refused(
        verdict(&[("token_use", json!("id")), none.clone(), ("client_id", json!("app"))]),
        Refusal::Claim("token_use"),
        "an id token",
    );
    // Where an audience is configured as well, it must be there too.
    let both = fixture::issuer_with(&[entry[0].clone(), entry[1].clone(), ("audiences", json!(["api"]))]);
    let text = rsa(&header(), &claims(&[access.clone(), none, ("client_id", json!("app"))]));
    refused(verdict_at(&both, &text, 0), Refusal::Claim("aud"), "no audience");
    let text = rsa(
        &header(),
        &claims(&[access, ("aud", json!("api")), ("client_id", json!("app"))]),
    );
    assert!(verdict_at(&both, &text, 0).is_ok());
}

#[test]
fn logs_show_foreign_text_escaped_and_tokens_not_at_all() {
    assert_eq!(shown("a\n\u{1b}[31m\"b\u{202e}"), "a\\n\\u{1b}[31m\\\"b\\u{202e}");
    assert_eq!(shown(&"x".repeat(10_000)).len(), 256);
    assert_eq!(digest("").as_str(), "e3b0c442");
    let text = good();
    assert!(!format!("{:?}", UnverifiedToken::parse(&text).unwrap()).contains("acme"));
}
