use super::*;

fn issuer() -> Issuer {
    let redirect = "https://localhost:8443/oidc/callback".parse().unwrap();
    Issuer::new("http://127.0.0.1:9".into(), &redirect).unwrap()
}

fn request() -> AuthorizeRequest {
    let verifier = PkceCodeVerifier::new(VERIFIER.into());
    AuthorizeRequest {
        response_type: "code".into(),
        client_id: "gatescribe".into(),
        redirect_uri: "https://localhost:8443/oidc/callback".into(),
        scope: "openid email".into(),
        state: "s&t".into(),
        nonce: "n".into(),
        code_challenge: PkceCodeChallenge::from_code_verifier_sha256(&verifier).as_str().into(),
        code_challenge_method: "S256".into(),
        acr_values: None,
        factors: None,
        sign_in_as: None,
    }
}

fn redeem(issuer: &Issuer, code: &str, verifier: &str) -> Result<Value, Refused> {
    issuer.token(&TokenRequest {
        grant_type: "authorization_code".into(),
        code: code.into(),
        redirect_uri: issuer.redirect_uri.clone(),
        client_id: "gatescribe".into(),
        client_secret: issuer.client_secret.expose_secret().to_owned(),
        code_verifier: verifier.to_owned(),
    })
}

fn code(url: &Url) -> String {
    url.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned()
}

const VERIFIER: &str = "0123456789012345678901234567890123456789012";

#[test]
fn a_code_is_redeemed_once_and_with_its_verifier() {
    let issuer = issuer();
    let first = code(&issuer.sign_in(&request(), "alice").unwrap());
    assert!(redeem(&issuer, &first, VERIFIER).is_ok());
    assert_eq!(redeem(&issuer, &first, VERIFIER).unwrap_err(), Refused::InvalidGrant);
    let second = code(&issuer.sign_in(&request(), "alice").unwrap());
    assert_eq!(redeem(&issuer, &second, &VERIFIER.replace('0', "1")).unwrap_err(), Refused::InvalidGrant);
    assert_eq!(redeem(&issuer, &second, VERIFIER).unwrap_err(), Refused::InvalidGrant, "spent by the wrong one");
    let third = code(&issuer.sign_in(&request(), "alice").unwrap());
    assert_eq!(redeem(&issuer, &third, "short").unwrap_err(), Refused::InvalidGrant);
}

#[tokio::test(start_paused = true)]
async fn a_code_lives_a_minute() {
    let issuer = issuer();
    let code = code(&issuer.sign_in(&request(), "alice").unwrap());
    tokio::time::advance(CODE_LIFETIME).await;
    assert_eq!(redeem(&issuer, &code, VERIFIER).unwrap_err(), Refused::InvalidGrant);
}

#[test]
fn only_the_registered_client_with_pkce_is_served() {
    let issuer = issuer();
    let plain = AuthorizeRequest { code_challenge_method: "plain".into(), ..request() };
    assert_eq!(issuer.sign_in(&plain, "alice").unwrap_err(), Refused::InvalidRequest);
    let elsewhere = AuthorizeRequest { redirect_uri: "https://evil.example.com/".into(), ..request() };
    assert_eq!(issuer.sign_in(&elsewhere, "alice").unwrap_err(), Refused::InvalidClient);
    assert_eq!(issuer.deny(&elsewhere).unwrap_err(), Refused::InvalidClient);
    assert_eq!(issuer.sign_in(&request(), "mallory").unwrap_err(), Refused::InvalidRequest);
    let url = issuer.sign_in(&request(), "bob").unwrap();
    assert!(url.query_pairs().any(|(name, value)| name == "state" && value == "s&t"));
}

#[test]
fn a_second_factor_is_told_where_it_is_asked_for_or_where_the_person_says_so() {
    let [one, two] = ACR;
    for (asked, said, told) in [
        (None, None, 0),
        (Some(two), None, 1),
        (Some("urn:elsewhere"), None, 0),
        (Some("urn:elsewhere urn:gatescribe:dev:mfa urn:gatescribe:dev:pwd"), None, 1),
        (Some("urn:gatescribe:dev:pwd urn:gatescribe:dev:mfa"), None, 0),
        (Some(one), Some(2), 1),
        (Some(two), Some(1), 0),
    ] {
        let request = AuthorizeRequest { acr_values: asked.map(Into::into), factors: said, ..request() };
        assert_eq!(request.class(), told, "{asked:?} {said:?}");
    }
}
