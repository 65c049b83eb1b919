use tollgate_config::schema::{Checks, Mask};

use super::{Checker, Verdict};

fn checks(deny: &[&str], mask: &[Mask]) -> Checks {
    Checks {
        deny: deny.iter().map(ToString::to_string).collect(),
        mask: mask.to_vec(),
    }
}

#[test]
fn without_checks_everything_is_allowed() {
    let checker = Checker::new(&Checks::default());
    assert!(checker.is_empty());
    assert_eq!(checker.session().check("jo@example.com"), Verdict::Allow);
    assert!(!Checker::new(&checks(&["x"], &[])).is_empty());
    assert!(!Checker::new(&checks(&[], &[Mask::Card])).is_empty());
}

#[test]
fn a_denied_text_is_not_masked() {
    let mut session = Checker::new(&checks(&["a", "jo@example.com"], &[Mask::Email])).session();
    assert_eq!(session.check("Ask jo@example.com"), Verdict::Deny { rule: 1 });
    assert_eq!(
        session.check("Ask ann@example.com"),
        Verdict::Change("Ask [EMAIL_1]".to_owned())
    );
}

#[test]
fn placeholders_are_the_same_in_all_texts_of_a_session() {
    let checker = Checker::new(&checks(&[], &[Mask::Email]));
    let mut session = checker.session();
    assert_eq!(session.check("jo@example.com"), Verdict::Change("[EMAIL_1]".to_owned()));
    assert_eq!(session.check("Nothing here"), Verdict::Allow);
    assert_eq!(
        session.check("ann@example.com, jo@example.com"),
        Verdict::Change("[EMAIL_2], [EMAIL_1]".to_owned())
    );
    assert_eq!(
        checker.session().check("ann@example.com"),
        Verdict::Change("[EMAIL_1]".to_owned())
    );
}

#[test]
fn a_verdict_shows_no_text() {
    assert_eq!(format!("{:?}", Verdict::Change("secret".to_owned())), "Change");
    assert_eq!(format!("{:?}", Verdict::Deny { rule: 3 }), "Deny { rule: 3 }");
}

#[test]
fn a_session_may_move_into_a_stream() {
    fn moves<T: Send + 'static>(_: T) {}
    let checker = Checker::new(&checks(&["x"], &[Mask::Email]));
    let session = checker.session();
    moves(crate::window::Window::new(&session));
    moves(session);
}
