//! A naive model that follows the semantics literally: it evaluates everything each second, keeps
//! whole histories, and schedules nothing.

use std::collections::BTreeMap;

/// In seconds. A smaller correction of the clock is the daily work of a time server.
const JUMP: i64 = 10;

#[derive(Clone, Debug)]
pub struct Rules {
    pub attempts: u32,
    pub volatile: bool,
    /// The low and the high threshold, in percent.
    pub flapping: Option<(u64, u64)>,
    /// Interval of reminders in seconds; 0: only one notification.
    pub interval: u64,
    pub delay: u64,
    pub states: Vec<u8>,
    /// Seconds; 0: none.
    pub freshness: u64,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub service: Option<String>,
    pub start: u64,
    pub end: u64,
    pub duration: Option<u64>,
    pub again: Option<Again>,
}

/// A window between two minutes of the day, on each day or on one of the week.
#[derive(Clone, Debug)]
pub struct Again {
    pub weekday: Option<u64>,
    pub from: u64,
    pub to: u64,
}

impl Again {
    /// Returns whether the window is open. `wall`: seconds since 1970, which began on a Thursday.
    fn holds(&self, wall: u64) -> bool {
        let (minute, today) = (wall / 60 % 1440, (wall / 86_400 + 3) % 7);
        let on = |day: u64| self.weekday.is_none_or(|wanted| wanted == day % 7);
        if self.from < self.to {
            return on(today) && (self.from..self.to).contains(&minute);
        }
        on(today) && minute >= self.from || on(today + 6) && minute < self.to
    }
}

/// The last notification.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LastNotification {
    Well,
    Bad(u8),
    Flapping,
}

#[derive(Debug)]
struct Sheet {
    rules: Rules,
    is_host: bool,
    /// All results so far.
    results: Vec<u8>,
    hard: Option<u8>,
    failures: u32,
    flapping: bool,
    told: LastNotification,
    /// Since when the hard state is a problem.
    bad_since: Option<u64>,
    reminded: Option<u64>,
    ack: Option<(bool, Option<u64>)>,
    newest: Option<u64>,
    heard: u64,
    silent: bool,
    /// The displayed state is from before its host recovered; no result came since.
    old: bool,
    /// Flexible downtimes that have begun, and when each ends.
    begun: BTreeMap<i64, u64>,
    in_downtime: bool,
}

#[derive(Debug)]
pub struct Clerk {
    host: Sheet,
    services: BTreeMap<String, Sheet>,
    plans: BTreeMap<i64, Plan>,
    said: Vec<String>,
    now: u64,
    /// The wall clock at zero, and by how much it was set since.
    epoch: u64,
    skew: i64,
}

impl Sheet {
    fn new(rules: Rules, is_host: bool) -> Sheet {
        Sheet {
            rules,
            is_host,
            results: Vec::new(),
            hard: None,
            failures: 0,
            flapping: false,
            told: LastNotification::Well,
            bad_since: None,
            reminded: None,
            ack: None,
            newest: None,
            heard: 0,
            silent: false,
            old: false,
            begun: BTreeMap::new(),
            in_downtime: false,
        }
    }

    fn shown(&self) -> Option<u8> {
        self.results.last().copied()
    }

    fn is_bad(&self) -> bool {
        self.shown().is_some_and(|code| code != 0)
    }

    fn is_soft(&self) -> bool {
        self.is_bad() && self.hard != self.shown()
    }

    fn hard_is_bad(&self) -> bool {
        self.hard.is_some_and(|code| code != 0)
    }

    /// SEMANTICS 4: counts a result.
    fn count(&mut self, code: u8, at_once: bool) {
        let was_hard_bad = self.hard_is_bad();
        self.results.push(code);
        self.failures = if code == 0 { 0 } else { self.failures + 1 };
        if code == 0 || was_hard_bad || at_once || self.failures >= self.rules.attempts {
            self.hard = Some(code);
        }
    }

    /// SEMANTICS 7: evaluates flapping, in 95ths of a weight.
    fn see_flapping(&mut self) {
        let Some((low, high)) = self.rules.flapping else { return };
        let last: Vec<u8> = self.results.iter().rev().take(21).rev().copied().collect();
        let offset = 20 - (last.len() - 1);
        let changes = last.windows(2).enumerate().filter(|(_, w)| w[0] != w[1]);
        let weights: u64 = changes.map(|(i, _)| 76 + 2 * (offset + i) as u64).sum();
        // percent = weights / 95 / 20 * 100
        self.flapping = if self.flapping { weights > low * 19 } else { weights > high * 19 };
    }

    fn word(&self, code: u8) -> &'static str {
        match (self.is_host, code) {
            (true, 0) => "up",
            (true, _) => "down",
            (false, code) => ["ok", "warning", "critical", "unknown"][code as usize],
        }
    }

    fn told_word(&self) -> &'static str {
        match self.told {
            LastNotification::Bad(code) => self.word(code),
            LastNotification::Well | LastNotification::Flapping => self.word(0),
        }
    }
}

impl Clerk {
    pub fn new(epoch: u64, host: Rules, services: BTreeMap<String, Rules>) -> Clerk {
        Clerk {
            host: Sheet::new(host, true),
            services: services.into_iter().map(|(n, r)| (n, Sheet::new(r, false))).collect(),
            plans: BTreeMap::new(),
            said: Vec::new(),
            now: 0,
            epoch,
            skew: 0,
        }
    }

    pub fn start(&mut self, t: u64) {
        self.now = t;
        self.host.heard = t;
        self.services.values_mut().for_each(|s| s.heard = t);
    }

    /// Runs up to and including `t`; calls `at` after each second.
    pub fn run_to(&mut self, t: u64, mut at: impl FnMut(&Clerk, u64)) {
        while self.now < t {
            self.now += 1;
            self.look();
            at(self, self.now);
        }
    }

    pub fn restart(&mut self, t: u64) {
        self.now = t;
        self.host.heard = t;
        self.services.values_mut().for_each(|s| s.heard = t);
        self.look();
    }

    /// Returns the wall clock, in seconds since its zero. Terms that people set are dates;
    /// durations are not.
    fn date(&self) -> u64 {
        self.now.saturating_add_signed(self.skew)
    }

    /// Sets the clock. After a jump silence is counted anew.
    pub fn set_clock(&mut self, skew: i64, t: u64) {
        self.now = t;
        if (skew - self.skew).abs() > JUMP {
            self.host.heard = t;
            self.services.values_mut().for_each(|s| s.heard = t);
        }
        self.skew = skew;
        self.look();
    }

    pub fn take_said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    fn sheet(&mut self, service: Option<&str>) -> &mut Sheet {
        match service {
            None => &mut self.host,
            Some(name) => self.services.get_mut(name).expect("a service of ours"),
        }
    }

    fn read(&self, service: Option<&str>) -> &Sheet {
        service.map_or(&self.host, |name| &self.services[name])
    }

    pub fn shown(&self, service: Option<&str>) -> Option<u8> {
        self.read(service).shown()
    }

    /// Returns the status, whether it is hard, and the attempt.
    pub fn state(&self, service: Option<&str>) -> (Option<u8>, bool, u32) {
        let sheet = self.read(service);
        let attempt = sheet.failures.clamp(1, sheet.rules.attempts);
        let attempt = if sheet.silent { sheet.rules.attempts } else { attempt };
        let attempt = if sheet.hard_is_bad() && sheet.is_bad() { sheet.rules.attempts } else { attempt };
        (sheet.shown(), !sheet.is_soft(), attempt)
    }

    /// Returns whether the displayed state is outdated.
    pub fn is_old(&self, service: &str) -> bool {
        self.services[service].old
    }

    /// Returns whether it is flapping, in downtime, and acknowledged.
    pub fn marks(&self, service: Option<&str>) -> (bool, bool, bool) {
        let sheet = self.read(service);
        (sheet.flapping, sheet.in_downtime, sheet.ack.is_some())
    }

    pub fn plan(&mut self, id: i64, plan: Plan, t: u64) {
        self.now = t;
        self.plans.insert(id, plan);
        self.look();
    }

    pub fn cancel(&mut self, id: i64, t: u64) {
        self.now = t;
        self.plans.remove(&id);
        self.look();
    }

    pub fn acknowledge(&mut self, service: Option<&str>, ack: Option<(bool, Option<u64>)>, t: u64) {
        self.now = t;
        self.sheet(service).ack = ack;
        self.look();
    }

    /// Submits a result; returns whether it is accepted.
    pub fn submit(&mut self, service: Option<&str>, code: u8, stamp: u64, t: u64) -> bool {
        self.now = t;
        let date = self.date();
        let stamp = stamp.min(date);
        if self.sheet(service).newest.is_some_and(|newest| newest <= date && stamp < newest) {
            return false;
        }
        let code = match service {
            None if code <= 1 => 0,
            None => 2,
            Some(_) => code,
        };
        let host_was_down = self.host.hard_is_bad();
        let sheet = self.sheet(service);
        (sheet.newest, sheet.heard, sheet.silent) = (Some(stamp), t, false);
        self.result(service, code, false);
        match (service, host_was_down, self.host.hard_is_bad()) {
            // The states of the services are from before the host failed.
            (None, _, true) => self.services.values_mut().for_each(|s| s.old = s.shown().is_some()),
            // Silence while the host was down does not count.
            (None, true, false) => self.services.values_mut().for_each(|s| s.heard = s.heard.max(t)),
            _ => {}
        }
        self.look();
        true
    }

    fn result(&mut self, service: Option<&str>, code: u8, at_once: bool) {
        let (now, dark) = (self.now, service.is_some() && self.host.hard_is_bad());
        let sheet = self.sheet(service);
        let before = sheet.shown();
        sheet.count(code, at_once);
        sheet.see_flapping();
        sheet.old = dark;
        sheet.bad_since = if sheet.hard_is_bad() { sheet.bad_since.or(Some(now)) } else { None };
        if code == 0 || sheet.ack.is_some_and(|(sticky, _)| !sticky) && before != Some(code) {
            sheet.ack = None;
        }
        self.look_at_time();
        let sheet = self.read(service);
        let again = sheet.rules.volatile && !sheet.flapping && !sheet.is_soft() && sheet.hard_is_bad();
        if again && sheet.told == LastNotification::Bad(code) && !self.is_held(service, true, code) {
            self.say(service, "problem", sheet.word(code), sheet.word(code));
            self.sheet(service).reminded = Some(now);
        }
    }

    fn say(&mut self, service: Option<&str>, kind: &str, from: &str, to: &str) {
        let object = service.unwrap_or("host");
        self.said.push(format!("{} {object} {kind} {from}>{to}", self.now));
    }

    fn names(&self) -> Vec<Option<String>> {
        std::iter::once(None).chain(self.services.keys().cloned().map(Some)).collect()
    }

    /// Evaluates everything, once a second and after every event.
    fn look(&mut self) {
        self.look_at_silence();
        self.look_at_time();
        for name in self.names() {
            self.tell(name.as_deref());
        }
    }

    /// Silence of a host means that it is down, and covers its services.
    fn look_at_silence(&mut self) {
        if self.host.hard_is_bad() {
            return;
        }
        if self.host.rules.freshness > 0 && self.now >= self.host.heard + self.host.rules.freshness {
            self.host.silent = true;
            self.result(None, 2, true);
            return self.services.values_mut().for_each(|s| s.old = s.shown().is_some());
        }
        for name in self.services.keys().cloned().collect::<Vec<_>>() {
            let sheet = &self.services[&name];
            let over = sheet.rules.freshness > 0 && self.now >= sheet.heard + sheet.rules.freshness;
            if over && !sheet.silent {
                self.sheet(Some(&name)).silent = true;
                self.result(Some(&name), 3, true);
            }
        }
    }

    /// Evaluates downtimes and acknowledgements, those of the host first, because they cover its
    /// services.
    fn look_at_time(&mut self) {
        let (date, epoch) = (self.date(), self.epoch);
        for name in self.names() {
            let own: Vec<(i64, Plan)> = self
                .plans
                .iter()
                .filter(|(_, p)| p.service == name)
                .map(|(id, p)| (*id, p.clone()))
                .collect();
            let covered = name.is_some() && self.host.in_downtime;
            let sheet = self.sheet(name.as_deref());
            let mut inside = covered;
            for (id, plan) in own {
                let open = match &plan.again {
                    Some(again) => again.holds(epoch + date),
                    None => plan.start <= date && date < plan.end,
                };
                match plan.duration {
                    None => inside |= open,
                    Some(duration) => {
                        if open && sheet.is_bad() && !sheet.old && !sheet.begun.contains_key(&id) {
                            sheet.begun.insert(id, date + duration);
                        }
                        inside |= sheet.begun.get(&id).is_some_and(|until| date < *until);
                    }
                }
            }
            sheet.in_downtime = inside;
            if sheet.ack.is_some_and(|(_, expires)| expires.is_some_and(|at| at <= date)) {
                sheet.ack = None;
            }
        }
    }

    fn is_held(&self, service: Option<&str>, problem: bool, code: u8) -> bool {
        self.obstacle(service, problem, code).is_some()
    }

    /// SEMANTICS 6: returns the first reason for suppressing a notification.
    fn obstacle(&self, service: Option<&str>, problem: bool, code: u8) -> Option<&'static str> {
        let sheet = self.read(service);
        let host_speaks = service.is_some() && self.host.hard_is_bad();
        let early = sheet.told == LastNotification::Well
            && sheet.bad_since.is_some_and(|t| self.now < t + sheet.rules.delay);
        let obstacles = [
            (host_speaks, "host_down"),
            (sheet.old, "not_current"),
            (sheet.in_downtime, "downtime"),
            (problem && sheet.ack.is_some(), "acknowledged"),
            (problem && !sheet.rules.states.contains(&code), "state_filter"),
            (problem && early, "delay"),
        ];
        obstacles.into_iter().find(|(stands, _)| *stands).map(|(_, reason)| reason)
    }

    /// Returns why such a notification would be suppressed now.
    pub fn reason(&self, service: Option<&str>, kind: &str, to: &str) -> Option<&'static str> {
        let sheet = self.read(service);
        if sheet.flapping && (kind == "problem" || kind == "recovery") {
            return Some("flapping");
        }
        let code =
            (0..4).rev().find(|code| sheet.word(*code) == to && (!sheet.is_host || *code == 0 || *code == 2));
        self.obstacle(service, kind == "problem" || kind == "reminder", code?)
    }

    fn tell(&mut self, service: Option<&str>) {
        let now = self.now;
        let sheet = self.read(service);
        let (told, hard) = (sheet.told, sheet.hard.unwrap_or(0));
        let (from, shown) = (sheet.told_word(), sheet.word(sheet.shown().unwrap_or(0)));
        if sheet.flapping {
            if told != LastNotification::Flapping && !self.is_held(service, false, 0) {
                self.say(service, "flapping_start", from, shown);
                self.sheet(service).told = LastNotification::Flapping;
            }
            self.sheet(service).reminded = None;
            return;
        }
        if told == LastNotification::Flapping && !self.is_held(service, false, 0) {
            self.say(service, "flapping_end", from, sheet.word(hard));
            self.sheet(service).told = LastNotification::Well;
        }
        let sheet = self.read(service);
        let (told, from) = (sheet.told, sheet.told_word());
        let owed = if hard == 0 { LastNotification::Well } else { LastNotification::Bad(hard) };
        if told != LastNotification::Flapping
            && !sheet.is_soft()
            && told != owed
            && !self.is_held(service, hard != 0, hard)
        {
            let kind = if hard == 0 { "recovery" } else { "problem" };
            self.say(service, kind, from, sheet.word(hard));
            let sheet = self.sheet(service);
            (sheet.told, sheet.reminded) = (owed, Some(now));
        }
        self.remind(service, hard);
    }

    fn remind(&mut self, service: Option<&str>, hard: u8) {
        let now = self.now;
        let sheet = self.read(service);
        let owed = hard != 0
            && sheet.told == LastNotification::Bad(hard)
            && !sheet.is_soft()
            && sheet.rules.interval > 0;
        if !owed || self.is_held(service, true, hard) {
            self.sheet(service).reminded = None;
            return;
        }
        let (from, interval, word) = (sheet.reminded.unwrap_or(now), sheet.rules.interval, sheet.word(hard));
        self.sheet(service).reminded = Some(from);
        if now >= from + interval {
            self.say(service, "reminder", word, word);
            self.sheet(service).reminded = Some(now);
        }
    }
}
