//! Questions to the tunnel thread about the packet filter, and their answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_engine::messages::{Command, ExplainId};
use tokio::sync::{mpsc, oneshot};

/// The tunnel thread answers within one turn, or when the time of a probe is over. A longer wait is a
/// fault of the gateway.
const PATIENCE: Duration = Duration::from_secs(2);

/// The questions of one kind without an answer yet. The callers limit their number: each waits for its
/// own.
pub struct Questions<A>(Arc<Mutex<Waiting<A>>>);

struct Waiting<A> {
    last: u64,
    open: BTreeMap<ExplainId, oneshot::Sender<A>>,
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
    id: ExplainId,
}

impl<A> Drop for Open<'_, A> {
    fn drop(&mut self) {
        self.of.lock().open.remove(&self.id);
    }
}

impl<A> Questions<A> {
    /// Asks the tunnel thread. `takes`: how long it may take to find the answer.
    ///
    /// # Errors
    /// Fails when the tunnel thread does not answer.
    pub async fn ask(
        &self,
        tunnel: &mpsc::Sender<Command>,
        question: impl FnOnce(ExplainId) -> Command,
        takes: Duration,
    ) -> anyhow::Result<A> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut waiting = self.lock();
            waiting.last += 1;
            let id = ExplainId(waiting.last);
            waiting.open.insert(id, answer);
            id
        };
        let _open = Open { of: self, id };
        let asked = async {
            tunnel.send(question(id)).await.ok().context("the tunnels have ended")?;
            answered.await.context("the tunnels have ended")
        };
        tokio::time::timeout(takes + PATIENCE, asked).await.context("the tunnels do not answer")?
    }

    /// Passes an answer on.
    pub fn answer(&self, id: ExplainId, answer: A) {
        if let Some(waiting) = self.lock().open.remove(&id) {
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
        ExplainRequest, ExplainSource, ExplainTarget, Explanation, GrantProtocol,
    };
    use fleetgate_engine::time::Wall;

    use super::*;

    fn question() -> ExplainRequest {
        let host = ExplainTarget::Host(Id::from_i64(7));
        let from = ExplainSource::User(Id::from_i64(70));
        ExplainRequest { from, to: host, protocol: GrantProtocol::Tcp, port: 22, at: Wall::from_millis(0) }
    }

    async fn ask(of: &Questions<Explanation>, tunnel: &mpsc::Sender<Command>) -> anyhow::Result<Explanation> {
        of.ask(tunnel, |id| Command::Explain(id, question()), Duration::ZERO).await
    }

    #[tokio::test]
    async fn each_question_gets_its_own_answer() {
        let (tunnel, mut commands) = mpsc::channel(8);
        let questions = Questions::default();
        let both = async { tokio::join!(ask(&questions, &tunnel), ask(&questions, &tunnel)) };
        let answers = async {
            let mut ids = Vec::new();
            for _ in 0..2 {
                let Some(Command::Explain(id, asked)) = commands.recv().await else { panic!("a question") };
                assert_eq!(asked, question());
                ids.push(id);
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
        let questions = Questions::default();
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, ask(&questions, &tunnel)).await.is_err());
        assert!(questions.lock().open.is_empty());
    }

    #[tokio::test]
    async fn without_a_tunnel_thread_there_is_no_answer() {
        let (tunnel, commands) = mpsc::channel(8);
        drop(commands);
        let error = ask(&Questions::default(), &tunnel).await.unwrap_err().to_string();
        assert_eq!(error, "the tunnels have ended");
    }
}
