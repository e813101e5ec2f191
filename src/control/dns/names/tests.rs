//! Which changes of names are logged, and which names share a line.

use super::*;

fn names(names: &[&str]) -> Names {
    let both = vec![Family::V4, Family::V6];
    Names::new(names.iter().map(|name| ((*name).to_owned(), both.clone())))
}

fn failed() -> Outcome {
    Outcome::Failed("no answer".to_owned())
}

fn change(state: State, names: &str, error: &str) -> Change {
    Change { state, names: names.to_owned(), error: error.to_owned() }
}

#[test]
fn a_name_that_is_resolved_from_the_start_is_not_logged() {
    let mut names = names(&["a"]);
    assert_eq!(names.unanswered(), ["a"]);
    assert!(!names.learn("a", Family::V4, Outcome::Found));
    assert_eq!(names.unanswered(), [""; 0], "the first addresses are an answer");
    assert!(!names.learn("a", Family::V6, Outcome::Empty(Absence::NoAddress)));
    assert_eq!(names.unanswered(), [""; 0]);
    assert_eq!(names.changes(), []);
}

#[test]
fn a_name_that_is_not_there_is_logged_once_and_so_is_its_recovery() {
    let mut names = names(&["a", "b"]);
    for family in [Family::V4, Family::V6] {
        names.learn("a", family, Outcome::Empty(Absence::NoSuchName));
        names.learn("b", family, Outcome::Empty(Absence::NoAddress));
    }
    let expected = [change(State::NoSuchName, "a", ""), change(State::NoAddress, "b", "")];
    assert_eq!(names.changes(), expected);
    assert_eq!(names.changes(), []);
    assert!(names.learn("a", Family::V4, Outcome::Found));
    assert_eq!(names.changes(), [change(State::Resolved, "a", "")]);
}

#[test]
fn names_that_cannot_be_looked_up_share_a_line() {
    let mut names = names(&["a", "b", "c"]);
    for family in [Family::V4, Family::V6] {
        names.learn("a", family, failed());
        names.learn("b", family, Outcome::Found);
        names.learn("c", family, failed());
    }
    let expected = change(State::Failing, "a, c", "IPv4 and IPv6: no answer");
    assert_eq!(names.changes(), [expected]);
    names.learn("b", Family::V6, failed());
    assert_eq!(names.changes(), [change(State::Partial, "b", "IPv6: no answer")]);
    assert!(names.learn("b", Family::V4, failed()), "now in both families");
    assert_eq!(names.changes(), [change(State::Failing, "b", "IPv4 and IPv6: no answer")]);
}

#[test]
fn names_that_fail_for_different_reasons_do_not_share_a_line() {
    let mut names = names(&["a", "b", "c"]);
    for family in [Family::V4, Family::V6] {
        names.learn("a", family, failed());
        names.learn("b", family, Outcome::Failed("refused".to_owned()));
        names.learn("c", family, failed());
    }
    let expected = [
        change(State::Failing, "a, c", "IPv4 and IPv6: no answer"),
        change(State::Failing, "b", "IPv4 and IPv6: refused"),
    ];
    assert_eq!(names.changes(), expected);
}

#[test]
fn a_denial_in_one_family_is_no_answer_while_the_other_is_missing() {
    let mut names = names(&["a"]);
    names.learn("a", Family::V4, Outcome::Empty(Absence::NoAddress));
    assert_eq!(names.unanswered(), ["a"]);
    names.learn("a", Family::V6, failed());
    assert_eq!(names.unanswered(), [""; 0]);
    assert_eq!(names.changes(), [change(State::Failing, "a", "IPv6: no answer")]);
}
