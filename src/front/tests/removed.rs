//! Listeners that the configuration does not have any more.

use super::*;
use crate::timers::ticks;

#[test]
fn a_removed_listener_is_found_by_its_id_while_it_is_used() {
    let text = format!(
        "{HEAD}protocol = \"tcp\"\ncluster = \"c\"\n[cluster.c]\nendpoints = [\"127.0.0.1:2\"]\n"
    );
    bench("protocol = \"tcp\"\ncluster = \"c\"", async |bench| {
        let found = |id: u64| {
            let generation = bench.context.generation.borrow();
            generation.listener_by_id(id).map(|listener| listener.name().to_string())
        };
        // The layout that the bench has, so that the ids go on.
        let mut before = None;
        for name in ["a", "b"] {
            let text = text.replace("name = \"a\"", &format!("name = {name:?}"));
            let config = config::parse("test", &text, Path::new("")).unwrap();
            let resources = Resources { before: before.take(), ..Resources::default() };
            let next = layout_with(&config, resources);
            bench.context.apply(&next);
            before = Some(Arc::new(next));
        }
        let listener = {
            let generation = bench.context.generation.borrow();
            Rc::clone(generation.listener_by_id(1).unwrap())
        };
        assert_eq!((found(1), found(2)), (Some("a".into()), Some("b".into())));
        let over = bench.context.timers.now() + ticks(LAST_REQUESTS);
        assert!(listener.end_service(over));
        let sweep = || bench.context.generation.borrow_mut().sweep(&bench.context.timers);
        sweep();
        assert!(found(1).is_some() && found(3).is_none());
        drop(listener);
        sweep();
        assert_eq!((found(1), found(2)), (None, Some("b".into())));
    });
}

#[test]
fn a_connection_that_is_accepted_after_the_end_of_its_service_is_reset_and_counts() {
    bench("protocol = \"tcp\"\ncluster = \"c\"", async |bench| {
        let listener = Rc::clone(bench.context.generation.borrow().listener("a").unwrap());
        let now = bench.context.timers.now();
        listener.remove(now);
        assert!(listener.end_service(now + ticks(LAST_REQUESTS)));
        let mut client = bench.client();
        assert_eq!(bench.end_of(&mut client).await.kind(), ErrorKind::ConnectionReset);
        assert_eq!(listener.counters.ended_by(End::Drain), 1);
        assert_eq!(listener.counters.connections.open(), 0);
    });
}
