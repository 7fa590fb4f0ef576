// Keeps the process's signals away from the module's own threads.
#pragma once

#include <pthread.h>

#include <csignal>

namespace isthmus::transport {

/// While one lives, new threads of this thread start with all signals blocked, so that the
/// process's signals go on interrupting the threads that wait for them.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace isthmus::transport
