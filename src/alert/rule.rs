//! The state of one instance of an alert, as a pure function of what was seen and when: it holds no clock, no I/O.
//!
//! ```text
//!                    condition holds          for FOR long
//!          ok ──────────────────────► pending ───────────► firing
//!          ▲  ◄────────────────────── (no longer)            │ no longer, for KEEP FIRING FOR long
//!          └─────────────────────────────────────────────► resolved ──► pending, as from ok
//! ```
//!
//! What is seen are *windows*, each with a stretch of event time that it speaks for and a word: the condition holds in it or
//! not. The stretches follow each other without gaps. A window that is open says yes as soon as it matches; no is said by
//! windows that have closed, and by the lack of any row in one that has: else the first rows of each window would take back what
//! the window before has said. Results without windows say yes or no from the moment that they change.
//!
//! What always holds: states and their times are those of event time, computed from the windows and not from the moment of
//! looking. So whoever looks once in a while, or goes through an archive, finds the same firings as one who looked all the
//! time, but for windows that matched while they were open and no longer when they closed. Only silence (`ON NO DATA`) and
//! repeating are measured by the wall clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Micros;

/// What a rule says about times, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// FOR: so long the condition has to hold before it fires.
    pub hold: Micros,
    /// KEEP FIRING FOR: so long it goes on firing when the condition no longer holds.
    pub keep: Micros,
    /// ON NO DATA: what happens when no row came for this long.
    pub no_data: Option<(NoData, Micros)>,
    /// REPEAT: how often a firing is told again.
    pub repeat: Option<Micros>,
}

impl Rule {
    /// Whether windows without rows say nothing, instead of no.
    fn bridges(&self) -> bool {
        self.no_data.is_some_and(|(action, _)| action != NoData::Fire)
    }
}

/// What it means that no rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoData {
    Fire,
    Resolve,
    /// The state stays as it is, for however long.
    Keep,
}

/// A moment: in event time, and by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Moment {
    /// The smallest there is while it is not known.
    pub event: Micros,
    pub wall: Micros,
}

impl Moment {
    /// Event time, or what stands for it while it is not known.
    pub fn time(self) -> Micros {
        if self.event == Micros::MIN { self.wall } else { self.event }
    }
}

/// The event time that a window speaks for: from `start` (inclusive) to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub start: Micros,
    pub end: Micros,
    /// The window behind it closes this much later; 0 where no other follows by itself (sessions, single rows).
    pub next: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    #[default]
    Ok,
    Pending,
    Firing,
    Resolved,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Pending => "pending",
            State::Firing => "firing",
            State::Resolved => "resolved",
        }
    }
}

/// A state was left for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub from: State,
    pub to: State,
    /// When, in event time; and when it was noticed.
    pub at: Moment,
    /// It fires because no data came.
    pub silent: bool,
}

/// A window that has not closed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    span: Span,
    matches: bool,
}

/// See the file header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub state: State,
    /// When the state was entered.
    pub since: Moment,
    /// The stretch without gaps over which the condition held, by what has closed. Without windows it has no end.
    run: Option<Span>,
    /// The last window that matched, open or closed.
    matched: Option<Span>,
    /// When the condition ceased to hold, while it still fires.
    ended: Option<Micros>,
    /// When a row was seen last, by the wall clock.
    pub seen: Micros,
    /// It was given up to wait for rows.
    pub silent: bool,
    /// Windows that have not closed, by their starts. Read from the relation again after a restart.
    #[serde(skip)]
    open: BTreeMap<Micros, Open>,
}

impl Instance {
    /// One that nothing is known of but that it is waited for.
    pub fn new(now: Moment) -> Instance {
        Instance {
            state: State::Ok,
            since: now,
            run: None,
            matched: None,
            ended: None,
            seen: now.wall,
            silent: false,
            open: BTreeMap::new(),
        }
    }

    /// Forgets the windows that are open: they are about to be read anew.
    pub fn begin_anew(&mut self) {
        self.open.clear();
    }

    /// Whether another one means the same, but for when a row was seen last and for windows that are open.
    pub fn is_as(&self, other: &Instance) -> bool {
        let of = |one: &Instance| (one.state, one.since, one.run, one.matched, one.ended, one.silent);
        of(self) == of(other)
    }

    /// Whether there is nothing left that the future depends on.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Ok | State::Resolved) && self.run.is_none() && self.open.is_empty()
    }

    /// Whether time alone may change it.
    pub fn waits(&self, rule: &Rule) -> bool {
        !self.is_idle() || rule.no_data.is_some_and(|(action, _)| action == NoData::Fire && !self.silent)
    }

    /// The latest word of a window. Windows that have closed before do not change what they have said.
    pub fn observe(&mut self, span: Span, matches: bool) {
        if matches && self.matched.is_none_or(|last| last.start <= span.start) {
            self.matched = Some(span);
        }
        self.open.insert(span.start, Open { span, matches });
    }

    /// Says whether the condition holds from now on, where there are no windows.
    pub fn observe_level(&mut self, matches: bool, now: Moment) {
        match (matches, self.run) {
            (true, None) => {
                let span = Span { start: now.event, end: Micros::MAX, next: 0 };
                (self.run, self.matched) = (Some(span), Some(span));
            }
            (false, Some(run)) => self.end(now.event.max(run.start)),
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// A row has come, whatever it says.
    pub fn wake(&mut self, now: Moment) {
        self.seen = self.seen.max(now.wall);
        if std::mem::take(&mut self.silent) && self.state == State::Firing && self.ended.is_none() {
            // Event time may not have been known when it fell silent: it is over at once.
            self.ended = Some(Micros::MIN);
        }
    }

    fn end(&mut self, at: Micros) {
        self.run = None;
        if self.state == State::Firing {
            self.ended.get_or_insert(at);
        }
    }

    /// Lets time go on to `now`; windows that end until `closed_to` have closed.
    pub fn advance(&mut self, rule: &Rule, now: Moment, closed_to: Micros) -> Vec<Change> {
        let mut changes = Vec::new();
        let bridges = rule.bridges();
        while let Some(first) = self.open.first_entry().filter(|first| first.get().span.end <= closed_to) {
            let Open { span, matches } = first.remove();
            self.close(span, matches, bridges);
            let then = Moment { event: span.end, wall: now.wall };
            self.step(rule, then, &mut changes);
        }
        if !bridges {
            self.miss(closed_to);
        }
        self.listen(rule, now);
        self.step(rule, now, &mut changes);
        changes
    }

    /// A window has said its last word.
    fn close(&mut self, span: Span, matches: bool, bridges: bool) {
        // One that said no would have ended it.
        let follows = self.run.is_some_and(|run| bridges || span.start <= run.end);
        match (&mut self.run, matches) {
            (Some(run), true) if follows => (run.end, run.next) = (run.end.max(span.end), span.next),
            (Some(run), _) => {
                let end = run.end;
                self.end(end);
                self.run = matches.then_some(span);
            }
            (None, true) => self.run = Some(span),
            // It matched while it was open, and no longer: there is no later one that did.
            (None, false) if self.matched.is_some_and(|last| last.start <= span.start) => self.end(span.start),
            (None, false) => {}
        }
    }

    /// A window that closed without any row says no.
    fn miss(&mut self, closed_to: Micros) {
        match (self.run, self.matched) {
            (Some(run), _) if run.end.saturating_add(run.next) <= closed_to => self.end(run.end),
            (Some(_), _) => {}
            // What it said while it was open is all that is known, as it is gone now.
            (None, Some(last)) if last.end <= closed_to && !self.holds_open() => self.end(last.start),
            (None, _) => {}
        }
    }

    fn holds_open(&self) -> bool {
        self.open.values().any(|open| open.matches)
    }

    /// What it means that no row comes.
    fn listen(&mut self, rule: &Rule, now: Moment) {
        let Some((action, after)) = rule.no_data else { return };
        if self.silent || now.wall < self.seen.saturating_add(after) {
            return;
        }
        match action {
            NoData::Keep => {}
            NoData::Fire => self.silent = true,
            NoData::Resolve => {
                self.silent = self.run.is_some() || self.state == State::Firing;
                self.open.clear();
                let at = self.run.map_or(now.event, |run| run.end.min(now.event));
                self.end(at);
            }
        }
    }

    /// The stretch without gaps over which the condition holds, up to now and, by windows that are open, beyond.
    fn coverage(&self, rule: &Rule) -> Option<Span> {
        let (mut covered, mut bridges) = (self.run, rule.bridges());
        for Open { span, matches } in self.open.values() {
            match &mut covered {
                // Nobody knows what it will say.
                _ if !matches => bridges = false,
                None => covered = Some(*span),
                Some(covered) if bridges || span.start <= covered.end => covered.end = covered.end.max(span.end),
                Some(_) => break,
            }
        }
        covered
    }

    /// Takes the steps between states that are due at `now`.
    fn step(&mut self, rule: &Rule, now: Moment, changes: &mut Vec<Change>) {
        let fires_silently = self.silent && rule.no_data.is_some_and(|(action, _)| action == NoData::Fire);
        loop {
            let covered = self.coverage(rule);
            let next = match (self.state, covered) {
                (State::Ok | State::Pending | State::Resolved, _) if fires_silently => (State::Firing, now.time()),
                (State::Ok | State::Resolved, Some(covered)) => (State::Pending, covered.start),
                (State::Ok | State::Resolved, None) => return,
                (State::Pending, None) => (State::Ok, now.time()),
                (State::Pending, Some(covered)) => {
                    let due = covered.start.saturating_add(rule.hold);
                    if rule.hold > 0 && (now.event < due || covered.end < due) {
                        self.since.event = covered.start;
                        return;
                    }
                    (State::Firing, due)
                }
                (State::Firing, _) if fires_silently => return,
                (State::Firing, covered) => {
                    let Some(ended) = self.ended else { return };
                    let until = ended.saturating_add(rule.keep);
                    match covered {
                        // It was silent, and is no longer.
                        _ if ended == Micros::MIN => (State::Resolved, now.time()),
                        Some(covered) if covered.start < until => {
                            self.ended = None;
                            return;
                        }
                        // It came back too late.
                        Some(_) => (State::Resolved, until),
                        None if now.event >= until => (State::Resolved, until),
                        None => return,
                    }
                }
            };
            let at = Moment { event: next.1, wall: now.wall };
            changes.push(Change { from: self.state, to: next.0, at, silent: fires_silently });
            (self.state, self.since, self.ended) = (next.0, at, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: Micros = 60;

    fn at(time: Micros) -> Moment {
        Moment { event: time, wall: time }
    }

    fn window(n: Micros) -> Span {
        Span { start: n * SIZE, end: (n + 1) * SIZE, next: SIZE }
    }

    fn rule(hold: Micros, keep: Micros) -> Rule {
        Rule { hold, keep, ..Rule::default() }
    }

    /// Changes as words: the state and when it was entered.
    fn words(changes: &[Change]) -> Vec<(&'static str, Micros)> {
        changes.iter().map(|change| (change.to.word(), change.at.event)).collect()
    }

    #[test]
    fn an_open_window_says_yes_and_only_a_closed_one_no() {
        let (rule, mut one) = (rule(0, 0), Instance::new(at(0)));
        one.observe(window(0), false);
        assert_eq!(words(&one.advance(&rule, at(10), 10)), []);
        one.observe(window(0), true);
        assert_eq!(words(&one.advance(&rule, at(20), 20)), [("pending", 0), ("firing", 0)]);
        // The next window has begun and does not match yet.
        one.observe(window(1), false);
        assert_eq!(words(&one.advance(&rule, at(61), 61)), []);
        one.observe(window(1), true);
        assert_eq!(words(&one.advance(&rule, at(120), 120)), []);
        one.observe(window(2), false);
        assert_eq!(words(&one.advance(&rule, at(179), 179)), []);
        assert_eq!(words(&one.advance(&rule, at(180), 180)), [("resolved", 120)]);
        assert!(one.is_idle());
    }

    #[test]
    fn a_window_without_rows_says_no_when_it_has_closed() {
        let (rule, mut one) = (rule(0, 0), Instance::new(at(0)));
        one.observe(window(0), true);
        assert_eq!(words(&one.advance(&rule, at(119), 119)), [("pending", 0), ("firing", 0)]);
        assert_eq!(words(&one.advance(&rule, at(120), 120)), [("resolved", 60)]);
    }

    #[test]
    fn one_that_no_longer_matches_when_it_closes_resolves_then() {
        let (rule, mut one) = (rule(0, 0), Instance::new(at(0)));
        one.observe(window(0), true);
        assert_eq!(one.advance(&rule, at(20), 20).len(), 2);
        one.observe(window(0), false);
        assert_eq!(words(&one.advance(&rule, at(59), 59)), []);
        assert_eq!(words(&one.advance(&rule, at(60), 60)), [("resolved", 0)]);
        // Also when the window is not known any more after a restart.
        one.observe(window(2), true);
        assert_eq!(one.advance(&rule, at(125), 125).len(), 2);
        one.begin_anew();
        assert_eq!(words(&one.advance(&rule, at(179), 179)), []);
        assert_eq!(words(&one.advance(&rule, at(180), 180)), [("resolved", 120)]);
    }

    #[test]
    fn for_is_measured_in_event_time_over_windows_without_gaps() {
        let (rule, mut one) = (rule(90, 0), Instance::new(at(0)));
        one.observe(window(0), true);
        assert_eq!(words(&one.advance(&rule, at(5), 5)), [("pending", 0)]);
        // A row ahead of the watermark: the window between has said nothing yet, so the stretch has a gap.
        one.observe(window(2), true);
        assert_eq!(words(&one.advance(&rule, at(100), 100)), []);
        one.observe(window(1), true);
        assert_eq!(words(&one.advance(&rule, at(110), 110)), [("firing", 90)]);
        let mut other = Instance::new(at(0));
        other.observe(window(0), true);
        other.advance(&rule, at(5), 5);
        assert_eq!(words(&other.advance(&rule, at(120), 120)), [("ok", 120)]);
    }

    #[test]
    fn keep_bridges_a_gap_and_no_longer_one() {
        for (keep, expected) in [(61, vec![]), (60, vec![("resolved", 120), ("pending", 120), ("firing", 120)])] {
            let (rule, mut one) = (rule(0, keep), Instance::new(at(0)));
            one.observe(window(0), true);
            assert_eq!(one.advance(&rule, at(60), 60).len(), 2);
            one.observe(window(1), false);
            one.observe(window(2), true);
            assert_eq!(words(&one.advance(&rule, at(121), 121)), expected, "{keep}");
        }
    }

    #[test]
    fn results_without_windows_hold_from_the_moment_on() {
        let (rule, mut one) = (rule(10, 5), Instance::new(at(0)));
        one.observe_level(true, at(3));
        assert_eq!(words(&one.advance(&rule, at(3), 3)), [("pending", 3)]);
        assert_eq!(words(&one.advance(&rule, at(12), 12)), []);
        assert_eq!(words(&one.advance(&rule, at(14), 14)), [("firing", 13)]);
        one.observe_level(false, at(20));
        assert_eq!(words(&one.advance(&rule, at(24), 24)), []);
        one.observe_level(true, at(24));
        assert_eq!(words(&one.advance(&rule, at(30), 30)), []);
        one.observe_level(false, at(40));
        assert_eq!(words(&one.advance(&rule, at(50), 50)), [("resolved", 45)]);
        one.observe_level(true, at(60));
        one.advance(&rule, at(60), 60);
        one.observe_level(false, at(61));
        assert_eq!(words(&one.advance(&rule, at(61), 61)), [("ok", 61)]);
    }

    #[test]
    fn single_rows_fire_until_none_has_come_for_keep() {
        let (rule, mut one) = (rule(0, 30), Instance::new(at(0)));
        let row = |t| Span { start: t, end: t, next: 0 };
        one.observe(row(5), true);
        assert_eq!(words(&one.advance(&rule, at(5), 5)), [("pending", 5), ("firing", 5)]);
        one.observe(row(30), true);
        assert_eq!(words(&one.advance(&rule, at(50), 50)), []);
        assert_eq!(words(&one.advance(&rule, at(60), 60)), [("resolved", 60)]);
    }

    #[test]
    fn silence_fires_resolves_or_keeps() {
        let silent = |action| Rule { no_data: Some((action, 100)), ..Rule::default() };
        let mut one = Instance::new(at(0));
        let fire = silent(NoData::Fire);
        assert!(one.waits(&fire));
        assert_eq!(words(&one.advance(&fire, at(99), 99)), []);
        let changes = one.advance(&fire, at(100), 100);
        assert_eq!((words(&changes), changes[0].silent), (vec![("firing", 100)], true));
        assert_eq!(words(&one.advance(&fire, at(500), 500)), []);
        one.wake(at(610));
        one.observe(window(10), false);
        assert_eq!(words(&one.advance(&fire, at(611), 611)), [("resolved", 611)]);
        for (action, expected) in [(NoData::Resolve, vec![("resolved", 60)]), (NoData::Keep, vec![])] {
            let (rule, mut one) = (silent(action), Instance::new(at(0)));
            one.wake(at(5));
            one.observe(window(0), true);
            assert_eq!(one.advance(&rule, at(104), 104).len(), 2);
            assert_eq!(words(&one.advance(&rule, at(300), 300)), expected, "{action:?}");
            // Rows come again.
            one.wake(at(370));
            one.observe(window(6), true);
            let again = words(&one.advance(&rule, at(430), 430));
            assert_eq!(again, if action == NoData::Keep { vec![] } else { vec![("pending", 360), ("firing", 360)] });
        }
    }

    #[test]
    fn what_is_written_down_goes_on() {
        let (rule, mut one) = (rule(90, 60), Instance::new(at(0)));
        one.observe(window(0), true);
        one.advance(&rule, at(60), 60);
        one.observe(window(1), true);
        let text = serde_json::to_string(&one).unwrap();
        let mut again: Instance = serde_json::from_str(&text).unwrap();
        again.observe(window(1), true);
        assert_eq!(words(&again.advance(&rule, at(95), 95)), [("firing", 90)]);
    }

    /// The firings that closed windows mean, told by their definition: stretches of matching windows at least `hold` long,
    /// those with gaps up to `keep` taken together once the first of them has fired.
    fn expected(matches: &[Option<bool>], rule: &Rule) -> Vec<(Micros, Micros)> {
        let mut stretches: Vec<(Micros, Micros)> = Vec::new();
        for (n, word) in matches.iter().enumerate() {
            let span = window(n as Micros);
            match stretches.last_mut() {
                _ if *word != Some(true) => {}
                Some(last) if last.1 == span.start => last.1 = span.end,
                _ => stretches.push((span.start, span.end)),
            }
        }
        let mut firings: Vec<(Micros, Micros)> = Vec::new();
        for (start, end) in stretches {
            match firings.last_mut() {
                Some(last) if start < last.1 => last.1 = end + rule.keep,
                _ if end - start >= rule.hold => firings.push((start + rule.hold, end + rule.keep)),
                _ => {}
            }
        }
        firings
    }

    proptest! {
        /// Whoever looks at any moments, however seldom, finds the same firings at the same times.
        #[test]
        fn firings_do_not_depend_on_when_one_looks(
            matches in prop::collection::vec(prop::option::weighted(0.8, any::<bool>()), 1..40),
            looks in prop::collection::vec(1..200i64, 0..60),
            hold in 0..200i64,
            keep in 0..200i64,
        ) {
            let rule = rule(hold, keep);
            let end = matches.len() as Micros * SIZE;
            let mut times: Vec<Micros> = looks.iter().scan(0, |t, step| { *t += step; Some(*t) }).collect();
            times.retain(|t| *t < end);
            times.push(end + hold + keep + 2 * SIZE);
            let mut one = Instance::new(at(0));
            let (mut next, mut found) = (0, Vec::new());
            for time in times {
                // A window is seen once it has begun.
                while next < matches.len() && next as Micros * SIZE <= time {
                    if let Some(word) = matches[next] {
                        one.observe(window(next as Micros), word);
                    }
                    next += 1;
                }
                let changes = one.advance(&rule, at(time), time);
                for change in &changes {
                    prop_assert!(change.from != change.to);
                    prop_assert!(matches!((change.from, change.to),
                        (State::Ok | State::Resolved, State::Pending) | (State::Pending, State::Firing | State::Ok)
                        | (State::Firing, State::Resolved)));
                    match change.to {
                        State::Firing => found.push((change.at.event, 0)),
                        State::Resolved => found.last_mut().expect("it fired").1 = change.at.event,
                        State::Ok | State::Pending => {}
                    }
                }
            }
            prop_assert_eq!(found, expected(&matches, &rule));
            prop_assert!(one.is_idle());
        }

        /// Whatever is seen in whatever order: no panic, and every step is one of those in the picture.
        #[test]
        fn any_order_takes_legal_steps(
            seen in prop::collection::vec((0..30i64, any::<bool>(), any::<bool>(), 0..100i64), 0..100),
            action in prop::option::of(prop::sample::select(vec![NoData::Fire, NoData::Resolve, NoData::Keep])),
            hold in 0..200i64,
            keep in 0..200i64,
        ) {
            let rule = Rule { hold, keep, no_data: action.map(|action| (action, 150)), repeat: None };
            let (mut one, mut now) = (Instance::new(at(0)), 0);
            for (n, matches, level, step) in seen {
                now += step;
                if level { one.observe_level(matches, at(now)) } else { one.observe(window(n), matches) }
                one.wake(at(now));
                let mut state = one.state;
                for change in one.advance(&rule, at(now), now) {
                    prop_assert_eq!(change.from, state);
                    let legal = match (change.from, change.to) {
                        (State::Ok | State::Resolved, State::Pending) => true,
                        (State::Ok | State::Resolved, State::Firing) => change.silent,
                        (State::Pending, State::Firing | State::Ok) | (State::Firing, State::Resolved) => true,
                        _ => false,
                    };
                    prop_assert!(legal, "{:?}", change);
                    state = change.to;
                }
                prop_assert_eq!(one.state, state);
            }
        }
    }
}
