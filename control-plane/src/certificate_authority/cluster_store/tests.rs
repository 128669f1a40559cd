use super::*;

#[test]
fn a_body_with_a_key_is_written_in_one_piece() {
    let place = Place::secret("mesh", "ca");
    let text = "x".repeat(3000);
    let body = secret_body(&place, Some("7"), &[("a.pem", &text), ("b", "y\n")]);
    let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(parsed["metadata"]["resourceVersion"], "7");
    assert_eq!(parsed["data"]["b"], "eQo=");
    let secret: SecretObject = serde_json::from_slice(&body).unwrap();
    assert_eq!(secret.get("a.pem"), text.as_bytes());
    assert_eq!(secret.get("missing"), b"");
}
