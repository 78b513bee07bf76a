# workerd with one worker, of which each process has an isolate of its own. The socket is given by `--socket-fd`, since
# workerd runs in one thread: as many processes as there are processors share it ("Multi-threading" in its README).
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [ (name = "main", worker = .answer) ],
  sockets = [ (name = "http", http = (), service = "main") ]
);

const answer :Workerd.Worker = (
  modules = [ (name = "worker", esModule = embed "workerd.js") ],
  # So new are the rules that the runtime goes by.
  compatibilityDate = "2026-11-01",
);
