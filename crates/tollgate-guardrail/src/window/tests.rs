use proptest::prelude::*;
use tollgate_config::schema::{Checks, Mask};

use super::{Denied, Window};
use crate::checks::{Checker, Verdict};

const PHRASES: [&str; 7] = [
    "project falcon",
    "falcon nine",
    "C++",
    "機密",
    "a",
    "straße  nach",
    "1 4111",
];

fn checker(deny: &[&str]) -> Checker {
    let deny = deny.iter().map(ToString::to_string).collect();
    Checker::new(&Checks {
        deny,
        mask: vec![Mask::Email, Mask::Card],
    })
}

fn whole(checker: &Checker, text: &str) -> Result<String, usize> {
    match checker.session().check(text) {
        Verdict::Allow => Ok(text.to_owned()),
        Verdict::Change(masked) => Ok(masked),
        Verdict::Deny { rule } => Err(rule),
    }
}

/// What each push lets out, the finish at last; cut short by a denial.
fn in_pieces<'a>(checker: &Checker, pieces: impl IntoIterator<Item = &'a str>) -> (Vec<String>, Option<Denied>) {
    let mut session = checker.session();
    let mut window = Window::new(&session);
    let mut out = Vec::new();
    for piece in pieces {
        match window.push(&mut session, piece) {
            Ok(text) => out.push(text),
            Err(denied) => return (out, Some(denied)),
        }
    }
    match window.finish(&mut session) {
        Ok(text) => out.push(text),
        Err(denied) => return (out, Some(denied)),
    }
    (out, None)
}

fn characters(text: &str) -> Vec<&str> {
    text.char_indices()
        .map(|(at, c)| &text[at..at + c.len_utf8()])
        .collect()
}

/// Cuts `text` after each character for which `cuts` says so.
fn cut<'a>(text: &'a str, cuts: &[bool]) -> Vec<&'a str> {
    let mut pieces = vec![];
    let mut begin = 0;
    for ((at, _), _) in text
        .char_indices()
        .zip(cuts.iter().cycle())
        .filter(|((at, _), cut)| **cut && *at > 0)
    {
        pieces.push(&text[begin..at]);
        begin = at;
    }
    pieces.push(&text[begin..]);
    pieces
}

/// Text of things that are matches, nearly matches, or change one beside them.
fn text() -> impl Strategy<Value = String> {
    let things = prop::sample::select(vec![
        "jo@example.com",
        "jo.doe@mail.example.org",
        "用户@例子.公司",
        "o'hara",
        "jo",
        "@",
        "example",
        ".com",
        "com",
        ".",
        "＠",
        "%40",
        "\\u0040",
        " at ",
        " dot ",
        "[at]",
        " [at] ",
        "(dot)",
        "4111 1111 1111 1111",
        "4111111111111111",
        "3782-822463-10005",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "4111",
        "1111",
        "１１１１",
        "5",
        "42",
        "1",
        " ",
        "-",
        "_",
        "\u{a0}",
        "\u{200b}",
        "\u{ad}",
        "\n",
        "\\n",
        ",",
        "+",
        "%",
        "[",
        "(",
        "a",
        "z",
        "é",
        "e\u{301}",
        "で",
        "は",
        "機",
        "密",
        "project",
        "FALCON",
        "falcon",
        "nine",
        "c",
        "++",
        "strasse",
        "STRAẞE",
        "nach",
        "\u{323}",
        "\u{302}",
        "ﬁ",
        "[EMAIL_1]",
        "[CARD_1]",
        "123456789012",
        "6304000000000000000",
        "v1.2",
    ]);
    let noise = "[a1@.\\-_% u04\\\\\\[\\]()t\u{200b}用、\n+,']{0,3}";
    let part = prop_oneof![6 => things.prop_map(str::to_owned), 1 => noise];
    prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn pieces_give_what_the_whole_gives(text in text(), cuts in prop::collection::vec(any::<bool>(), 1..32)) {
        let checker = checker(&[]);
        let expected = whole(&checker, &text).unwrap();
        for pieces in [characters(&text), cut(&text, &cuts)] {
            let (out, denied) = in_pieces(&checker, pieces);
            prop_assert_eq!(denied, None);
            prop_assert_eq!(out.concat(), &*expected, "of {:?}", text);
        }
    }

    /// So nothing of a match is out before its placeholder.
    #[test]
    fn what_is_out_is_a_prefix_of_the_masked_text(text in text()) {
        let checker = checker(&[]);
        let expected = whole(&checker, &text).unwrap();
        let mut so_far = String::new();
        for out in in_pieces(&checker, characters(&text)).0 {
            so_far.push_str(&out);
            prop_assert!(expected.starts_with(&so_far), "{:?} of {:?}", so_far, text);
        }
    }

    #[test]
    fn pieces_are_denied_when_the_whole_is(
        text in text(),
        rules in prop::sample::subsequence(PHRASES.to_vec(), 1..4),
        cuts in prop::collection::vec(any::<bool>(), 1..32),
    ) {
        let checker = checker(&rules);
        let expected = whole(&checker, &text);
        for pieces in [characters(&text), cut(&text, &cuts)] {
            let (out, denied) = in_pieces(&checker, pieces);
            match &expected {
                Ok(masked) => prop_assert_eq!(&out.concat(), masked, "of {:?}", text),
                Err(rule) => prop_assert_eq!(denied, Some(Denied { rule: *rule }), "of {:?}", text),
            }
        }
    }

    /// Whatever is before a denied phrase may be out, but nothing of the phrase.
    #[test]
    fn nothing_of_a_denied_phrase_is_out(before in text(), cuts in prop::collection::vec(any::<bool>(), 1..32)) {
        let secret = "Xylo\u{ad}phone   ＯＦ \n xenon";
        let checker = Checker::new(&Checks { deny: vec!["xylophone of xenon".into()], mask: vec![] });
        let text = format!("{before} {secret}! And more.");
        for pieces in [characters(&text), cut(&text, &cuts)] {
            let (out, denied) = in_pieces(&checker, pieces);
            prop_assert_eq!(denied, Some(Denied { rule: 0 }));
            let out = out.concat();
            prop_assert!(out.len() <= before.len() + 1 && text.starts_with(&out), "{:?}", out);
        }
    }

    #[test]
    fn masked_text_stays_as_it_is(text in text()) {
        let checker = checker(&[]);
        let once = whole(&checker, &text).unwrap();
        prop_assert_eq!(whole(&checker, &once).unwrap(), &*once, "of {:?}", text);
    }
}

#[test]
fn a_stream_ends_with_the_denial() {
    let checker = checker(&["stop"]);
    let mut session = checker.session();
    let mut window = Window::new(&session);
    assert_eq!(window.push(&mut session, "go stop").as_deref(), Ok("go "));
    let denied = Err(Denied { rule: 0 });
    assert_eq!(window.push(&mut session, "!"), denied);
    assert_eq!(window.push(&mut session, ""), denied);
    assert_eq!(window.push(&mut session, "more"), denied);
    assert_eq!(window.finish(&mut session), denied);
}

#[test]
fn prose_flows_word_by_word() {
    let text =
        "In 2024 the 3 teams of Zürich, don't ask why, met at 10 (or so) for 12 km – and 500 more. 私は、元気です。";
    let checker = checker(&["project falcon", "xenon"]);
    let mut session = checker.session();
    let mut window = Window::new(&session);
    let mut held = 0;
    for piece in characters(text) {
        held = held + piece.len() - window.push(&mut session, piece).unwrap().len();
        assert!(held <= 3 * 8, "{held} bytes held");
        // A year with the space after it could still be the beginning of a card number.
        assert!(
            piece != " " || held <= " 2024 ".len(),
            "{held} bytes held after a word: {piece:?}"
        );
    }
    assert_eq!(window.finish(&mut session).unwrap().len(), held);
}

#[test]
fn what_is_held_is_bounded() {
    let checker = checker(&["project falcon"]);
    let parts = [
        "a", "1", "1 ", "4", "4 ", "4111 ", "a.", "a@", "a@b.", "-", "用", "\u{200b}", "project ", "a at ", "e\u{301}",
        " ",
    ];
    for part in parts {
        let mut session = checker.session();
        let mut window = Window::new(&session);
        let (mut taken, mut out) = (0_isize, 0);
        for piece in std::iter::once("x@b.c").chain(std::iter::repeat_n(part, 5_000)) {
            taken += piece.chars().count() as isize;
            out += window.push(&mut session, piece).unwrap().chars().count() as isize;
        }
        assert!(taken - out <= 700, "{} characters of {part:?} held", taken - out);
    }
}

#[test]
fn limits_cut_alike_wherever_the_text_is_cut() {
    let checker = checker(&[]);
    let a = |n| "a".repeat(n);
    for (text, expected) in [
        (format!("x@b.c{}", a(300)), format!("[EMAIL_1]{}", a(48))),
        (
            format!("x@b.cc{}.", ".1".repeat(200)),
            format!("[EMAIL_1]{}.", ".1".repeat(200)),
        ),
        (format!("{}-{}@b.cc", a(9), a(64)), format!("{}-[EMAIL_1]", a(9))),
        (format!("{}-{}@b.cc", a(9), a(65)), format!("{}-{}@b.cc", a(9), a(65))),
        (
            format!("{}@b.cc", "用".repeat(40)),
            format!("{}[EMAIL_1]", "用".repeat(24)),
        ),
        (format!("x{}y@b.cc", "\u{200b}".repeat(63)), "[EMAIL_1]".to_owned()),
        (
            format!("x{0}y@b.cc", "\u{200b}".repeat(64)),
            format!("x{}[EMAIL_1]", "\u{200b}".repeat(64)),
        ),
        ("5".repeat(40), "5".repeat(40)),
    ] {
        assert_eq!(whole(&checker, &text).unwrap(), expected);
        assert_eq!(in_pieces(&checker, characters(&text)).0.concat(), expected);
    }
}

#[test]
fn the_cost_grows_with_the_text_only() {
    // Looking at everything again with each character would take many minutes.
    let begin = std::time::Instant::now();
    for unit in [
        "a@b.c.",
        "4111 1111 1111 1111 ",
        "project ",
        "word and word, ",
        "a.b at c dot ",
    ] {
        let text = unit.repeat(200_000 / unit.len());
        let checker = checker(&["project falcon"]);
        assert_eq!(
            in_pieces(&checker, characters(&text)).0.concat(),
            whole(&checker, &text).unwrap()
        );
    }
    assert!(
        begin.elapsed() < std::time::Duration::from_secs(60),
        "{:?}",
        begin.elapsed()
    );
}
