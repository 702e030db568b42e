use super::super::super::fake_api::{Answer, FakeApi, Then};
use super::*;

async fn lines(chunks: &[&str], then: Then) -> Lines {
    // The fake ends each chunk with the end of a line.
    let api = FakeApi::new([Answer::Lines(chunks.iter().map(ToString::to_string).collect(), then)], Answer::Never);
    Pods::new(api.client(), None).watch("x=y", Some("1"), Duration::from_secs(1)).await.unwrap()
}

#[tokio::test]
async fn frames_are_taken_apart_into_lines() {
    let mark = super::super::super::fake_api::bookmark("7", false);
    // Two lines in one frame, then one in another.
    let mut lines = lines(&[&format!("{mark}\n{mark}"), &mark], Then::Close).await;
    for _ in 0..3 {
        assert!(matches!(lines.next().await.unwrap(), Line::Bookmark { version: Some(v), .. } if v == "7"));
    }
    assert!(matches!(lines.next().await, Err(Trouble::Ended)));
}

#[tokio::test]
async fn what_is_no_watch_line_is_garbled_and_not_a_pod() {
    let mut lines = lines(&[r#"{"type":"CONFETTI","object":{}}"#, "no json"], Then::Close).await;
    assert!(matches!(lines.next().await, Err(Trouble::Garbled(_))));
    assert!(matches!(lines.next().await, Err(Trouble::Garbled(_))));
}

#[tokio::test]
async fn the_buffer_gives_back_what_a_huge_line_took() {
    let huge = format!(r#"{{"type":"BOOKMARK","object":{{"metadata":{{"x":"{}"}}}}}}"#, "x".repeat(1 << 20));
    let mark = super::super::super::fake_api::bookmark("7", false);
    let mut lines = lines(&[&huge, &mark], Then::Close).await;
    lines.next().await.unwrap();
    assert!(lines.buffer.capacity() >= 1 << 20);
    lines.next().await.unwrap();
    assert!(lines.buffer.capacity() <= 2 * KEPT_BYTES, "{}", lines.buffer.capacity());
}

#[test]
fn a_list_that_is_none_is_no_empty_list() {
    assert!(matches!(decode_page(b"{\"kind\":\"Status\"}").map(|page| page.version), Ok(None) | Err(_)));
    assert!(matches!(decode_page(b"<html>"), Err(Trouble::Garbled(_))));
}

#[test]
fn an_error_of_an_old_server_without_a_code_is_still_known_as_gone() {
    let line = br#"{"type":"ERROR","object":{"kind":"Status","reason":"Expired","message":"too old"}}"#;
    assert!(matches!(decode_line(line), Err(Trouble::Gone(_))));
}
