use super::*;

#[test]
fn webhooks_go_to_the_internet_or_where_the_configuration_says() {
    let private = ["hooks.internal".to_owned(), "127.0.0.1".to_owned()];
    for address in [
        "https://example.com/a?b=c",
        "https://1.1.1.1:8443/",
        "https://[2606:4700::1111]/",
        "http://hooks.internal:9000/x",
        "http://127.0.0.1:9000/x",
    ] {
        assert!(check(&private, address).is_ok(), "{address}");
    }
    let long = format!("https://example.com/{}", "a".repeat(LONGEST_URL));
    for address in [
        "",
        "example.com",
        "http://example.com/",
        "ftp://hooks.internal/",
        "file:///etc/passwd",
        "https://user@example.com/",
        "https://user:word@hooks.internal/",
        "https://example.com/#here",
        "https://10.0.0.1/",
        "https://127.0.0.2/",
        // The same address, written otherwise.
        "https://2130706434/",
        "https://0x7f.2/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        &long,
    ] {
        assert!(check(&private, address).is_err(), "{address}");
    }
}

#[test]
fn a_receiver_that_fails_is_tried_ever_more_rarely_and_not_for_ever() {
    const DAY: Duration = Duration::from_secs(86_400);
    let after = |status, deliveries, now| next(DAY, Told::Failed(status), Millis(0), deliveries, Millis(now), 1.0);
    let seconds = |deliveries| after(None, deliveries, 0).unwrap().as_secs();
    assert_eq!([1, 2, 3, 10, 11, u32::MAX].map(seconds), [5, 10, 20, 2560, 3600, 3600]);
    let refused = |status| after(Some(status), 1, 0);
    assert_eq!(refused(StatusCode::GONE), None);
    assert_eq!(refused(StatusCode::NOT_FOUND), Some(FIRST_PAUSE));
    assert_eq!(after(None, 1, 86_394_000), Some(FIRST_PAUSE));
    assert_eq!(after(None, 1, 86_396_000), None);
}
