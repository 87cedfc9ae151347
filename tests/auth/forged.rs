//! Tokens: the honest ones hold, whatever the algorithm; those forged in the known ways do not.

use aws_lc_rs::hmac;
use booking_service::pb::GetBookingRequest;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{House, Instance, block_on};
use crate::issuer::{AUDIENCE, Key, USER, base64, claims, jwks, now, options, trusting, unsigned};
use crate::secured::{
    Client, Office, assert_denied, assert_refused, assert_unknown, client, client_with, written,
};

/// Asks for a booking that does not exist: whoever is let in is told that it is not theirs.
async fn knock(mut client: Client) -> Result<(), Status> {
    let name = format!("bookings/{}", uuid::Uuid::new_v4());
    let answer = client.get_booking(GetBookingRequest { name }).await;
    answer.map(drop)
}

async fn assert_let_in(client: Client, what: &str) {
    let status = assert_denied(knock(client).await, what);
    assert!(
        status.message().contains("not a booking"),
        "{what}: {status:?}"
    );
}

#[test]
fn an_honest_token_holds_in_every_algorithm() {
    block_on(async {
        let office = Office::shared().await;
        let channel = office.instance.channel();
        let signed = [
            ("RS256", &office.rsa),
            ("RS384", &office.rsa),
            ("RS512", &office.rsa),
            ("PS256", &office.rsa),
            ("PS384", &office.rsa),
            ("PS512", &office.rsa),
            ("ES256", &office.p256),
            ("ES384", &office.p384),
            ("EdDSA", &office.ed25519),
        ];
        for (algorithm, key) in signed {
            for header in [
                json!({"alg": algorithm, "kid": key.kid}),
                // The only key for its algorithm needs no name.
                json!({"alg": algorithm}),
            ] {
                let token = key.token_with(&header, &claims("ada", USER));
                assert_let_in(client(channel.clone(), &token), algorithm).await;
            }
        }
    });
}

fn changed(path: &str, value: Value) -> Value {
    let mut claims = claims("ada", USER);
    claims[path] = value;
    claims
}

fn without(path: &str) -> Value {
    let mut claims = claims("ada", USER);
    claims.as_object_mut().unwrap().remove(path);
    claims
}

/// Signed with a secret that is no secret.
fn hmac_signed(header: &Value, secret: &[u8]) -> String {
    let signed = unsigned(header, &claims("ada", USER));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", base64(tag))
}

#[test]
fn what_a_token_says_must_be_so() {
    block_on(async {
        let office = Office::shared().await;
        for (what, claims) in [
            ("expired", changed("exp", json!(now() - 31))),
            ("expired long ago", changed("exp", json!(0))),
            ("without an end", without("exp")),
            ("an end that is a text", changed("exp", json!("9999999999"))),
            ("not yet valid", changed("nbf", json!(now() + 60))),
            ("a beginning that is a text", changed("nbf", json!("0"))),
            (
                "of another issuer",
                changed("iss", json!("https://other.test/")),
            ),
            (
                "of several issuers",
                changed("iss", json!([crate::issuer::ISSUER])),
            ),
            ("without an issuer", without("iss")),
            ("for another audience", changed("aud", json!("payments"))),
            (
                "for other audiences",
                changed("aud", json!(["payments", "mail"])),
            ),
            ("without an audience", without("aud")),
            ("without a subject", without("sub")),
            ("of nobody", changed("sub", json!(""))),
            ("of a list", changed("sub", json!(["ada"]))),
            (
                "of a subject no booking can have",
                changed("sub", json!("a\nb")),
            ),
            (
                "of a subject too long for a booking",
                changed("sub", json!("a".repeat(256))),
            ),
            ("of a subject in spaces", changed("sub", json!(" ada"))),
            (
                "an audience in a list in a list",
                changed("aud", json!([[AUDIENCE]])),
            ),
            (
                "an audience that is an object",
                changed("aud", json!({AUDIENCE: true})),
            ),
            (
                "an audience that begins alike",
                changed("aud", json!(format!("{AUDIENCE}-test"))),
            ),
            ("an end before all time", changed("exp", json!(-1))),
            (
                "with scopes in a form unheard of",
                changed("scope", json!(7)),
            ),
        ] {
            assert_unknown(knock(office.with(&claims)).await, what);
        }
        for (what, claims) in [
            ("a little late", changed("exp", json!(now() - 10))),
            ("a little early", changed("nbf", json!(now() + 10))),
            ("of a long name", changed("sub", json!("a".repeat(255)))),
            (
                "with a fraction of a second",
                changed(
                    "exp",
                    json!(f64::from(u32::try_from(now() + 600).unwrap()) + 0.5),
                ),
            ),
            (
                "an audience among others",
                changed("aud", json!(["mail", AUDIENCE])),
            ),
        ] {
            assert_let_in(office.with(&claims), what).await;
        }
    });
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of forgeries")]
fn a_forged_token_is_refused() {
    block_on(async {
        let office = Office::shared().await;
        let (rsa, p256) = (&office.rsa, &office.p256);
        let honest = claims("ada", USER);
        let rs256 = json!({"alg": "RS256", "kid": "rsa"});
        let hs256 = json!({"alg": "HS256", "kid": "rsa"});
        let good = rsa.token(&honest);
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let pem = format!(
            "-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n",
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, rsa.public())
        );
        let stranger = Key::rsa("rsa");
        let evil = Key::rsa("evil");
        let forged = [
            ("nothing in it", String::new()),
            ("not a token", "a.b.c".to_owned()),
            (
                "alg none",
                format!("{}.", unsigned(&json!({"alg": "none"}), &honest)),
            ),
            (
                "alg nOnE",
                format!("{}.", unsigned(&json!({"alg": "nOnE"}), &honest)),
            ),
            (
                "alg none with a signature",
                format!(
                    "{}.{signature}",
                    unsigned(&json!({"alg": "none", "kid": "rsa"}), &honest)
                ),
            ),
            (
                "no alg",
                format!("{}.{signature}", unsigned(&json!({"kid": "rsa"}), &honest)),
            ),
            (
                "HS256 with the public key as secret",
                hmac_signed(&hs256, &rsa.public()),
            ),
            (
                "HS256 with the public key's PEM as secret",
                hmac_signed(&hs256, pem.as_bytes()),
            ),
            (
                "HS256 with the modulus as secret",
                hmac_signed(&hs256, &rsa.modulus()),
            ),
            (
                "HS256 without kid",
                hmac_signed(&json!({"alg": "HS256"}), &rsa.public()),
            ),
            ("HS256 with an empty secret", hmac_signed(&hs256, b"")),
            ("another's key under a good name", stranger.token(&honest)),
            ("another's key under its own name", evil.token(&honest)),
            (
                "another's key under no name",
                evil.token_with(&json!({"alg": "RS256"}), &honest),
            ),
            (
                "a good key under another's name",
                rsa.token_with(&json!({"alg": "RS256", "kid": "p256"}), &honest),
            ),
            (
                "a good key under no known name",
                rsa.token_with(&json!({"alg": "RS256", "kid": "?"}), &honest),
            ),
            (
                "ES256 by an RSA key",
                rsa.token_with(&json!({"alg": "ES256", "kid": "rsa"}), &honest),
            ),
            (
                "RS256 by an EC key",
                p256.token_with(&json!({"alg": "RS256", "kid": "p256"}), &honest),
            ),
            (
                "EdDSA by an EC key",
                p256.token_with(&json!({"alg": "EdDSA", "kid": "p256"}), &honest),
            ),
            (
                "ES384 by a key of P-256",
                p256.token_with(&json!({"alg": "ES384", "kid": "p256"}), &honest),
            ),
            (
                "PS256 signed as RS256",
                format!(
                    "{0}.{1}",
                    unsigned(&json!({"alg": "PS256", "kid": "rsa"}), &honest),
                    base64(rsa.sign(
                        "RS256",
                        unsigned(&json!({"alg": "PS256", "kid": "rsa"}), &honest).as_bytes()
                    ))
                ),
            ),
            (
                "a key of its own in the header",
                evil.token_with(
                    &json!({"alg": "RS256", "kid": "rsa", "jwk": evil.jwk()}),
                    &honest,
                ),
            ),
            (
                "a header that must be understood",
                rsa.token_with(
                    &json!({"alg": "RS256", "kid": "rsa", "crit": ["exp"]}),
                    &honest,
                ),
            ),
            (
                "other claims under a good signature",
                format!(
                    "{}.{signature}",
                    unsigned(&rs256, &claims("root", crate::issuer::ADMIN))
                ),
            ),
            ("no signature", format!("{signed}.")),
            ("half a signature", good[..good.len() - 40].to_owned()),
            ("a part too many", format!("{good}.{signature}")),
            (
                "too long",
                rsa.token(&changed("more", json!("x".repeat(8_192)))),
            ),
        ];
        for (what, token) in forged {
            let client = client(office.instance.channel(), &token);
            assert_unknown(knock(client).await, what);
        }
        // And the one that they were made after holds.
        assert_let_in(client(office.instance.channel(), &good), "honest").await;
    });
}

#[test]
fn a_call_has_one_credential_of_the_right_kind() {
    block_on(async {
        let office = Office::shared().await;
        let token = office.p256.token(&claims("ada", USER));
        let (basic, bearer) = ("Basic YWRhOnB3".to_owned(), format!("Bearer {token}"));
        for (what, headers) in [
            ("none", vec![]),
            ("a password", vec![basic.as_str()]),
            ("no scheme", vec![token.as_str()]),
            ("two", vec![bearer.as_str(), bearer.as_str()]),
        ] {
            let client = client_with(office.instance.channel(), &headers);
            let status = assert_unknown(knock(client).await, what);
            assert!(!format!("{status:?}").contains(&token), "{what}");
        }
        let lower = format!("bearer {token}");
        assert_let_in(
            client_with(office.instance.channel(), &[&lower]),
            "lower case",
        )
        .await;
    });
}

#[test]
fn keys_of_the_wrong_kind_are_left_out_of_a_jwks() {
    block_on(async {
        let good = Key::p256("good");
        let marked = |key: &Key, field: &str, value: Value| {
            let mut jwk = key.jwk();
            jwk[field] = value;
            jwk
        };
        let (secret, crypt) = (b"0123456789abcdef0123456789abcdef", Key::rsa("crypt"));
        let narrow = Key::rsa("narrow");
        // One name for two keys, as while an issuer changes from one kind to another.
        let (twin, other_twin) = (Key::p256("twin"), Key::p256("twin"));
        let document = json!({"keys": [
            {"kty": "oct", "kid": "oct", "k": base64(secret), "alg": "HS256"},
            {"kty": "new", "kid": "new"},
            marked(&crypt, "use", json!("enc")),
            marked(&narrow, "alg", json!("PS512")),
            good.jwk(),
            twin.jwk(),
            other_twin.jwk(),
        ]});
        let (_dir, file) = written(&document.to_string());
        let database = House::shared().await.database();
        let instance = Instance::start(database, trusting(&file).await).await;
        let shared = hmac_signed(&json!({"alg": "HS256", "kid": "oct"}), secret);
        let honest = claims("ada", USER);
        for (what, token) in [
            ("a shared secret", shared),
            ("a key for encryption", crypt.token(&honest)),
            ("a key for another algorithm", narrow.token(&honest)),
        ] {
            assert_unknown(knock(client(instance.channel(), &token)).await, what);
        }
        assert_let_in(client(instance.channel(), &good.token(&honest)), "good").await;
        for twin in [&twin, &other_twin] {
            assert_let_in(client(instance.channel(), &twin.token(&honest)), "a twin").await;
        }
        let ps512 = narrow.token_with(&json!({"alg": "PS512", "kid": "narrow"}), &honest);
        assert_let_in(client(instance.channel(), &ps512), "its algorithm").await;
    });
}

#[test]
fn nobody_is_let_in_by_a_jwks_without_a_key() {
    block_on(async {
        let names = booking_service::grpc::ScopeNames::default;
        for content in [
            "",
            "{}",
            r#"{"keys": []}"#,
            r#"{"keys": [{"kty": "oct", "k": "AA"}]}"#,
            &json!({"keys": [{"kty": "RSA", "n": base64([0xff; 128]), "e": "AQAB"}]}).to_string(),
        ] {
            let (_dir, file) = written(content);
            let keys = booking_service::grpc::KeySource::file(file);
            let opened = booking_service::grpc::SignIn::by_token(options(keys), names()).await;
            assert!(opened.is_err(), "{content}");
        }
        let _ = jwks(&[]);
    });
}

#[test]
fn each_call_takes_its_scope() {
    block_on(async {
        let office = Office::shared().await;
        let scp = |scopes: Value| {
            let mut claims = without("scope");
            claims["scp"] = scopes;
            claims
        };
        for (what, claims) in [
            ("no scopes", without("scope")),
            (
                "the other scope",
                claims("ada", "bookings.write bookings.admin"),
            ),
            (
                "scopes that begin alike",
                claims("ada", "bookings.readable bookings.rea"),
            ),
            ("in another case", claims("ada", "Bookings.Read")),
            (
                "a list of one text",
                scp(json!(["bookings.read bookings.write"])),
            ),
        ] {
            let status = assert_denied(knock(office.with(&claims)).await, what);
            let info = status.get_details_error_info().unwrap();
            assert_eq!(info.metadata["scope"], "bookings.read", "{what}");
        }
        assert_let_in(office.with(&scp(json!(["bookings.read"]))), "a list").await;
        let mut reader = office.with(&claims("ada", "bookings.read bookings.admin"));
        let deleted = reader.delete_booking(booking_service::pb::DeleteBookingRequest {
            name: format!("bookings/{}", uuid::Uuid::new_v4()),
            etag: String::new(),
        });
        let status = assert_denied(deleted.await, "reading is not writing");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["scope"], "bookings.write");
        let missing = knock(office.admin("root")).await;
        assert_refused(
            missing,
            Code::NotFound,
            "BOOKING_NOT_FOUND",
            "an admin sees all",
        );
    });
}
