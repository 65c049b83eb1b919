use tollgate_config::schema::Mask;

use super::{Kinds, Masker, Placeholders};

fn masked(text: &str) -> String {
    let mut masker = Masker::new(Kinds::new(&[Mask::Email, Mask::Card]));
    let (mut names, mut out) = (Placeholders::default(), String::new());
    masker.push(text, &mut names, &mut out);
    masker.finish(&mut names, &mut out);
    out
}

fn assert_masked(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(masked(text), *expected, "of {text}");
    }
}

fn assert_untouched(texts: &[&str]) {
    for text in texts {
        assert_eq!(masked(text), *text);
    }
}

#[test]
fn addresses_are_masked_and_nothing_beside_them() {
    assert_masked(&[
        ("Mail jo@example.com.", "Mail [EMAIL_1]."),
        ("<jo.doe+tag@mail.example.co.uk>,", "<[EMAIL_1]>,"),
        ("'o'hara_1@example.org'?", "'[EMAIL_1]'?"),
        ("mailto:jo%40example.com&x=1", "mailto:[EMAIL_1]&x=1"),
        ("?email=jo@example.com&token=a", "?email=[EMAIL_1]&token=a"),
        (r#"{"to":"jo\u0040example.com"}"#, r#"{"to":"[EMAIL_1]"}"#),
        (r#""Hi,\njo@example.com\n""#, r#""Hi,\n[EMAIL_1]\n""#),
        ("**jo@example.com**, _jo@example.com_", "**[EMAIL_1]**, _[EMAIL_1]_"),
        ("jörg@müller.de and δοκιμή@παράδειγμα.ελ", "[EMAIL_1] and [EMAIL_2]"),
        ("用户@例子.公司", "[EMAIL_1]"),
        ("連絡先はjo@example.comです", "連絡先は[EMAIL_1]です"),
        ("ｊｏ＠ｅｘａｍｐｌｅ．ｃｏｍ", "[EMAIL_1]"),
        ("j\u{200b}o@\u{ad}example\u{200d}.com\u{200b}!", "[EMAIL_1]\u{200b}!"),
        ("jo@xn--bcher-kva.xn--p1ai", "[EMAIL_1]"),
        ("jo@example.com.1, jo@example.com-", "[EMAIL_1].1, [EMAIL_1]-"),
        ("a@b@example.com", "a@[EMAIL_1]"),
        ("Name.......jo@example.com", "Name.......[EMAIL_1]"),
        ("jo.doe at example dot com", "[EMAIL_1]"),
        ("jo[at]example.com or jo(AT)example(dot)com", "[EMAIL_1] or [EMAIL_1]"),
    ]);
}

#[test]
fn what_only_resembles_an_address_stays() {
    assert_untouched(&[
        "user@localhost",
        "a@b.c",
        "@handle and @types/node",
        "tokio@1.40.0, root@192.0.2.1",
        "a @ b.com",
        "look at example dot com",
        "v1.2 at github.com",
        "jo@.com, jo@-x.com, jo@example..com",
        "@example.com",
        "%40",
        r"Hi,\n@example.com",
    ]);
    let long = format!("{}@example.com", "a".repeat(65));
    assert_untouched(&[&long]);
}

#[test]
fn cards_are_masked_in_every_usual_writing() {
    assert_masked(&[
        ("4111111111111111", "[CARD_1]"),
        ("Card: 4111 1111 1111 1111, exp 09/29", "Card: [CARD_1], exp 09/29"),
        ("4111-1111-1111-1111 123", "[CARD_1] 123"),
        ("pay 2 with 5555 5555 5555 4444.", "pay 2 with [CARD_1]."),
        ("2223003122003222 2720992720992729", "[CARD_1] [CARD_2]"),
        ("3782 822463 10005", "[CARD_1]"),
        ("6011111111111117, 3530111333300000", "[CARD_1], [CARD_2]"),
        ("30569309025904, 3056 930902 5904", "[CARD_1], [CARD_1]"),
        ("6200000000000005", "[CARD_1]"),
        ("6759649826438453", "[CARD_1]"),
        ("676222165679", "[CARD_1]"),
        ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 ok", "[CARD_1] ok"),
        (
            "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
            "[CARD_1] [CARD_1]",
        ),
        ("４１１１ １１１１ １１１１ １１１１", "[CARD_1]"),
        ("4111\u{a0}1111\u{202f}1111\u{2011}1111", "[CARD_1]"),
        ("41\u{200b}11111111111111", "[CARD_1]"),
        ("卡号4111111111111111。", "卡号[CARD_1]。"),
        (r"\n4111111111111111\n", r"\n[CARD_1]\n"),
        ("4111111111111111@example.com", "[CARD_1]@example.com"),
        ("jo@example.com 4111111111111111", "[EMAIL_1] [CARD_1]"),
    ]);
}

#[test]
fn other_numbers_stay() {
    assert_untouched(&[
        "Order 4111111111111112 was shipped.",
        "Order 9242875721586241",
        "No issuer has 9123456789012348, 41123456789016, 2100123456789010 or 584512345672.",
        "41111111111111111",
        "441111111111111111111111111111111111",
        "4111  1111  1111  1111",
        "4111 1111 1111\n1111",
        "+4111111111111111",
        "0.4111111111111111",
        "x4111111111111111",
        "4111111111111111f",
        "git revert 4111111111111111a756058304c3a69e7bb5d234",
        "41111111-1111-1111-a111-111111111111",
        "00000000-4111-1111-1111-111111111111",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
        "4 5 6 7 8 9 10 11 12 13 14 15",
        "Timestamps 1638842821 and 1679677964",
        "978-6-1478-3625-5",
        "127.0.0.1, 2001:db8::4111:1111",
    ]);
}

#[test]
fn the_same_thing_has_the_same_placeholder() {
    assert_masked(&[
        (
            "jo@a.com jo@b.com JO@A.COM jo%40a.com",
            "[EMAIL_1] [EMAIL_2] [EMAIL_1] [EMAIL_1]",
        ),
        (
            "j.o@a.com j.o at a dot com j.o [at] a.com",
            "[EMAIL_1] [EMAIL_1] [EMAIL_1]",
        ),
        ("4111111111111111 4111-1111-1111-1111", "[CARD_1] [CARD_1]"),
    ]);
}

#[test]
fn kinds_are_masked_only_if_asked_for() {
    let text = "jo@example.com 4111111111111111";
    for (kinds, expected) in [
        (vec![Mask::Email], "[EMAIL_1] 4111111111111111"),
        (vec![Mask::Card], "jo@example.com [CARD_1]"),
        (vec![], text),
    ] {
        let mut masker = Masker::new(Kinds::new(&kinds));
        let (mut names, mut out) = (Placeholders::default(), String::new());
        masker.push(text, &mut names, &mut out);
        masker.finish(&mut names, &mut out);
        assert_eq!(out, expected);
    }
}

/// Longer than the parts it is looked through in.
#[test]
fn a_long_text_is_masked_as_a_short_one_is() {
    let unit = "Mail jo@example.com or pay with 4111 1111 1111 1111 – ですね. ";
    let expected = "Mail [EMAIL_1] or pay with [CARD_1] – ですね. ";
    assert_eq!(masked(&unit.repeat(5_000)), expected.repeat(5_000));
}
