//! Questions to the tunnel thread, and their answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_engine::messages::Command;
use tokio::sync::{mpsc, oneshot};

/// The tunnel thread answers within one turn, or when the time of a probe is over. A longer wait is a
/// fault of the gateway.
const PATIENCE: Duration = Duration::from_secs(2);

/// The questions of one kind that have no answer yet, by number. The callers limit how many there
/// are: each waits for its own. Cheap to clone.
pub struct Questions<A>(Arc<Mutex<Waiting<A>>>);

struct Waiting<A> {
    last: u64,
    open: BTreeMap<u64, oneshot::Sender<A>>,
}

impl<A> Default for Questions<A> {
    fn default() -> Self {
        Questions(Arc::new(Mutex::new(Waiting { last: 0, open: BTreeMap::new() })))
    }
}

impl<A> Clone for Questions<A> {
    fn clone(&self) -> Self {
        Questions(self.0.clone())
    }
}

/// Removes a question whose caller has gone.
struct Open<'a, A> {
    of: &'a Questions<A>,
    number: u64,
}

impl<A> Drop for Open<'_, A> {
    fn drop(&mut self) {
        self.of.lock().open.remove(&self.number);
    }
}

impl<A> Questions<A> {
    /// Sends the command that asks under a number, and waits for the answer. `takes`: how long it may take
    /// to find it.
    ///
    /// # Errors
    /// Fails when the tunnel thread does not answer.
    pub async fn ask(
        &self,
        tunnel: &mpsc::Sender<Command>,
        command: impl FnOnce(u64) -> Command,
        takes: Duration,
    ) -> anyhow::Result<A> {
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut waiting = self.lock();
            waiting.last += 1;
            let number = waiting.last;
            waiting.open.insert(number, answer);
            number
        };
        let _open = Open { of: self, number };
        let asked = async {
            tunnel.send(command(number)).await.ok().context("the tunnels have ended")?;
            answered.await.context("the tunnels have ended")
        };
        tokio::time::timeout(takes + PATIENCE, asked).await.context("the tunnels do not answer")?
    }

    /// Passes an answer on.
    pub fn answer(&self, number: u64, answer: A) {
        if let Some(waiting) = self.lock().open.remove(&number) {
            let _ = waiting.send(answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<A>> {
        self.0.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::{
        ExplainId, ExplainRequest, ExplainSource, ExplainTarget, Explanation, GrantProtocol,
    };
    use fleetgate_engine::time::Wall;

    use super::*;

    fn question() -> ExplainRequest {
        let host = ExplainTarget::Host(Id::from_i64(7));
        let from = ExplainSource::User(Id::from_i64(70));
        ExplainRequest { from, to: host, protocol: GrantProtocol::Tcp, port: 22, at: Wall::from_millis(0) }
    }

    fn ask(number: u64) -> Command {
        Command::Explain(ExplainId(number), question())
    }

    #[tokio::test]
    async fn each_question_gets_its_own_answer() {
        let (tunnel, mut commands) = mpsc::channel(8);
        let questions = Questions::default();
        let both = async {
            tokio::join!(
                questions.ask(&tunnel, ask, Duration::ZERO),
                questions.ask(&tunnel, ask, Duration::ZERO)
            )
        };
        let answers = async {
            let mut ids = Vec::new();
            for _ in 0..2 {
                let Some(Command::Explain(id, asked)) = commands.recv().await else { panic!("a question") };
                assert_eq!(asked, question());
                ids.push(id.0);
            }
            questions.answer(ids[1], Explanation::NoGrant);
            questions.answer(ids[0], Explanation::UnknownTarget);
        };
        let ((first, second), ()) = tokio::join!(both, answers);
        assert_eq!((first.unwrap(), second.unwrap()), (Explanation::UnknownTarget, Explanation::NoGrant));
        assert!(questions.lock().open.is_empty());
    }

    #[tokio::test]
    async fn a_question_whose_caller_has_gone_is_forgotten() {
        let (tunnel, _commands) = mpsc::channel(8);
        let questions = Questions::<Explanation>::default();
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, questions.ask(&tunnel, ask, Duration::ZERO)).await.is_err());
        assert!(questions.lock().open.is_empty());
    }

    #[tokio::test]
    async fn without_a_tunnel_thread_there_is_no_answer() {
        let (tunnel, commands) = mpsc::channel(8);
        drop(commands);
        let error = Questions::<Explanation>::default()
            .ask(&tunnel, ask, Duration::ZERO)
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(error, "the tunnels have ended");
    }
}
