use std::sync::Arc;

use super::{Phrases, Search};

fn denied(phrase: &str, text: &str) -> bool {
    rule(&[phrase], text).is_some()
}

fn rule(phrases: &[&str], text: &str) -> Option<usize> {
    let phrases: Vec<_> = phrases.iter().map(ToString::to_string).collect();
    let mut search = Search::new(Arc::new(Phrases::new(&phrases)?));
    search.push(text).or_else(|| search.finish())
}

#[test]
fn case_space_and_form_do_not_matter() {
    let texts = [
        "project falcon",
        "About PROJECT  Falcon: nothing",
        "project\u{a0}\t\r\n falcon!",
        "(Project\u{3000}ＦＡＬＣＯＮ)",
        "pro\u{200b}ject fal\u{ad}con",
        "\u{feff}p\u{2060}roject \u{200d} falcon",
        "ⓟⓡⓞⓙⓔⓒⓣ 𝐟𝐚𝐥𝐜𝐨𝐧",
    ];
    for text in texts {
        assert!(denied("Project Falcon", text), "{text}");
    }
    for (phrase, text) in [
        ("straße", "Hauptstrasse STRASSE"),
        ("STRASSE", "in der Straße."),
        ("ΟΔΟΣ", "η οδος"),
        ("fiancé", "ﬁance\u{301}"),
        ("việt", "vie\u{302}\u{323}t"),
        ("việt", "vi\u{ea}\u{323}t"),
    ] {
        assert!(denied(phrase, text), "{phrase} in {text}");
    }
}

#[test]
fn only_whole_words_match() {
    let cases = [
        ("falcon", "falcons", false),
        ("falcon", "my_falcon", false),
        ("falcon", "gyrfalcon", false),
        ("falcon", "falcon9", false),
        ("falcon", "falcón", false),
        ("falco", "falco\u{301}n", false),
        ("falcon", "falcon's", true),
        ("falcon", "peregrine-falcon", true),
        ("project falcon", "project, falcon", false),
        ("project falcon", "projectfalcon", false),
        ("café", "cafe", false),
        ("cafe", "cafe\u{301}", false),
        ("C++", "in C++17", true),
        ("C++", "in Objective-C++", true),
        ("C++", "abc++", false),
        (".env", "cat.env", true),
        (".env", ".environment", false),
        ("42", "1422", false),
    ];
    for (phrase, text, expected) in cases {
        assert_eq!(denied(phrase, text), expected, "{phrase} in {text}");
    }
}

#[test]
fn scripts_without_spaces_have_no_word_edges() {
    for (phrase, text) in [
        ("機密", "これは機密です"),
        ("ลับ", "ความลับนี้"),
        ("secret", "これはsecretです"),
        ("비밀", "비밀을"),
    ] {
        assert!(denied(phrase, text), "{phrase} in {text}");
    }
    assert!(!denied("かき", "かぎ"), "a voiced kana is another character");
    assert!(!denied("가", "각"), "a syllable is not the beginning of another");
}

#[test]
fn the_first_phrase_to_end_is_named_then_the_first_in_the_list() {
    assert_eq!(rule(&["b c d", "b c", "c"], "a b c d"), Some(1));
    assert_eq!(rule(&["  ", "\u{200b}", "x"], "a x"), Some(2));
    assert_eq!(rule(&["", " \n"], "a  x"), None);
    assert_eq!(rule(&["a b", "a b c"], "a bc a b d"), Some(0));
}

#[test]
fn a_phrase_pulled_too_far_apart_is_none() {
    let apart = |gap: usize| denied("project falcon", &format!("project{}falcon", " ".repeat(gap)));
    assert!(apart(200));
    assert!(!apart(300));
}

#[test]
fn only_what_may_begin_a_phrase_is_not_cleared() {
    let phrases = ["project falcon", ".env", "\u{301}x"].map(str::to_owned);
    let phrases = Arc::new(Phrases::new(&phrases).unwrap());
    for (text, cleared) in [
        ("a pr", 2),
        ("a Ｐr", 2),
        ("sp", 2),
        ("a project", 2),
        ("a project  \u{200b}", 2),
        ("a project x", 11),
        ("a projects", 10),
        ("a .e", 2),
        ("a .ex", 5),
        ("a \u{301}", 2),
    ] {
        let mut search = Search::new(Arc::clone(&phrases));
        assert_eq!(search.push(text), None);
        assert_eq!(search.cleared(), cleared, "{text}");
    }
}
