/* One intent (a phone and an amount) and all that can befall its prompts.
 *
 * Two callers of one client try to initiate; requests and answers are lost at every point; the
 * client crashes and recovers from its journal; status answers and webhooks come late, twice and
 * out of order; a payment that had expired or failed is paid after all. The promises are the
 * assertions, and one temporal property:
 *
 *   P1  no prompt goes out while the end of an earlier one is not proven;
 *   P2  "nothing was sent" is never wrong, neither then nor later;
 *   P3  completed is reported only of what is completed, and never taken back;
 *   P4  an end is reported only if it was observed;
 *   P5  a status never goes back, and money that arrived is never kept from the merchant;
 *   P6  who waits knows in the end, if the server answers and the customer does something.
 *
 * Each #ifdef beside the first is a mistake somebody could make; each has to be found.
 */

#define ATTEMPTS 2
#define CRASHES_MAX 1
#define LOSSES_MAX 1     /* of status answers: after that, the server answers */

/* What the client's journal says of an attempt. It outlives a crash. */
#define NONE 0
#define BEGUN 1          /* written before the first byte leaves */
#define OPEN 2           /* answered: there is a reference to follow */
#define UNKNOWN 3
#define ENDED 4

/* Statuses, in the order of a payment's life; a bit each in the histories. */
#define UNSEEN 0
#define INITIATED 1
#define PROCESSING 2
#define FAILED 3
#define EXPIRED 4
#define COMPLETED 5
#define BIT(s) (1 << (s))
#define IS_END(s) ((s) >= FAILED)
#define TELLS(s) ((was[n] & BIT(s)) && (journal[n] == OPEN || journal[n] == ENDED))

/* Ends of an exchange. */
#define PENDING 1
#define REJECTED 2
#define FAULTY 3         /* a 5xx: with or without a prompt */

byte attempts;
byte crashes;
byte life;               /* grows with each crash */
byte losses;

byte journal[ATTEMPTS];
byte known[ATTEMPTS];    /* what the client tells of a payment */
byte seen[ATTEMPTS];     /* what it was told, as bits */

/* The truth, which the client does not see. */
bool prompted[ATTEMPTS];
byte truth[ATTEMPTS];
byte was[ATTEMPTS];      /* as bits */
bool proven[ATTEMPTS];   /* an end was observed */
bool denied[ATTEMPTS];   /* the merchant was told: nothing was sent */

chan network = [ATTEMPTS] of { byte };           /* requests that have left */
chan answers[ATTEMPTS] = [1] of { byte };
bool listens[ATTEMPTS];                          /* whether somebody awaits the answer */

inline answer(n, end) {
  if
  :: listens[n] -> answers[n]!end; listens[n] = false
  :: !listens[n] -> skip
  fi
}

inline becomes(n, status) {
  truth[n] = status;
  was[n] = was[n] | BIT(status)
}

/* --- The client's rules --- */

/* Is there a prompt that is not known to be over? */
inline look_for_open(n, found) {
  n = 0; found = false;
  do
  :: n < attempts ->
     if
#ifdef FORGETS_UNKNOWN
     :: journal[n] == BEGUN || journal[n] == OPEN -> found = true
#else
#ifdef GUARD_RUNS_OUT
     :: journal[n] == BEGUN || journal[n] == UNKNOWN -> found = true
#else
     :: journal[n] == BEGUN || journal[n] == OPEN || journal[n] == UNKNOWN -> found = true
#endif
#endif
     :: else
     fi;
     n++
  :: else -> break
  od;
  n = 0
}

inline report(n, status) {
  assert(known[n] != COMPLETED || status == COMPLETED);                  /* P3 */
  assert(status != COMPLETED || (was[n] & BIT(COMPLETED)));              /* P3 */
  assert(!IS_END(status) || (seen[n] & BIT(status)));                    /* P4 */
  assert(status >= known[n]                                              /* P5 */
         || (IS_END(known[n]) && status == COMPLETED));
  known[n] = status;
  if
  :: IS_END(status) -> journal[n] = ENDED; proven[n] = true
  :: else
  fi
}

inline note(n, status) {
  if
  :: IS_END(status) -> seen[n] = seen[n] | BIT(status)
  :: else
  fi
}

/* Merge what a status answer or a webhook tells. */
inline observe(n, status) {
  note(n, status);
  if
#ifdef BELIEVES_STALE
  :: true -> report(n, status)
#else
#ifdef EXPIRED_IS_FINAL
  :: IS_END(known[n]) -> skip
#else
  :: IS_END(known[n]) && known[n] != COMPLETED && status == COMPLETED -> report(n, status)
  :: IS_END(known[n]) && !(known[n] != COMPLETED && status == COMPLETED) -> skip
#endif
#ifdef PROCESSING_IS_PAID
  :: !IS_END(known[n]) && status == PROCESSING -> report(n, COMPLETED)
  :: !IS_END(known[n]) && status > known[n] && status != PROCESSING -> report(n, status)
#else
  :: !IS_END(known[n]) && status > known[n] -> report(n, status)
#endif
  :: !IS_END(known[n]) && status <= known[n] -> skip
#endif
  fi;
  assert(status != COMPLETED || known[n] == COMPLETED)                   /* P5 */
}

inline deny(n) {
  journal[n] = NONE; denied[n] = true;
  assert(!prompted[n])                                                   /* P2 */
}

inline conclude(n, end) {
  if
  :: end == PENDING -> journal[n] = OPEN;
     if
     :: known[n] == UNSEEN -> report(n, INITIATED)
     :: else
     fi
  :: end == REJECTED -> deny(n)
#ifdef FAULT_IS_REJECTION
  :: end == FAULTY -> deny(n)
#else
  :: end == FAULTY -> journal[n] = UNKNOWN
#endif
  fi
}

proctype Caller(bool comes_back) {
  byte mine, me, n, end, sent;
  bool tried;
  bool found;

restart:
  atomic { mine = life; me = 0; n = 0; end = 0; sent = 0; found = false; tried = false };
  {
    do
    :: !tried ->
       tried = true;
#ifdef GUARD_IS_NOT_ATOMIC
       atomic { look_for_open(n, found) };
#endif
       atomic {
#ifndef GUARD_IS_NOT_ATOMIC
         look_for_open(n, found);
#endif
         if
         :: found || attempts >= ATTEMPTS -> found = true                /* refused as a duplicate */
         :: else ->
            me = attempts; attempts++; sent = 0;
#ifndef JOURNAL_AFTER_ANSWER
            journal[me] = BEGUN
#endif
         fi
       };
       if
       :: found
       :: else ->
again:
          if
          :: atomic { true -> network!me; sent++; listens[me] = true };                    /* it has left */
             if
             :: atomic { answers[me]?end -> conclude(me, end) }
             :: atomic { listens[me] -> listens[me] = false };           /* no answer in time */
#ifdef RETRIES_AFTER_TIMEOUT
                if
                :: sent < 2 -> goto again
                :: else -> journal[me] = UNKNOWN
                fi
#else
#ifdef LOST_IS_FAILED
                atomic { report(me, FAILED) }
#else
#ifdef LOST_IS_NEVER_SENT
                atomic { deny(me) }
#else
                journal[me] = UNKNOWN
#endif
#endif
#endif
             fi
          :: sent == 0 ->                                                /* proven: nothing left */
             if
             :: goto again
             :: atomic { deny(me) }
             fi
          fi
       fi;
       atomic { me = 0; end = 0; sent = 0; found = false }
    :: else -> break
    od
  } unless { life != mine };
  if
  :: life != mine && comes_back -> goto restart
  :: else
  fi
}

/* A crash takes everything but the journal; recovery reads it. */
proctype Crash() {
  byte n;
end:
  do
  :: atomic {
       crashes < CRASHES_MAX ->
       crashes++; life++; n = 0;
       do
       :: n < ATTEMPTS ->
          if
#ifdef RECOVERY_FORGETS
          :: journal[n] == BEGUN -> journal[n] = NONE
#else
          :: journal[n] == BEGUN -> journal[n] = UNKNOWN
#endif
          :: else
          fi;
          listens[n] = false;
          if
          :: answers[n]?_
          :: empty(answers[n])
          fi;
          if
          :: !IS_END(known[n]) -> known[n] = UNSEEN
          :: else
          fi;
          n++
       :: else -> break
       od;
       n = 0
     }
  od
}

/* One loop for each payment that can be followed, in whichever life of the client. */
proctype Waiter(byte n) {
  byte status;
end:
  (journal[n] == OPEN || journal[n] == ENDED);
  do
  :: journal[n] == ENDED -> break
  :: journal[n] == OPEN ->
     if
     :: atomic { losses < LOSSES_MAX -> losses++ };
#ifdef WAITER_GIVES_UP
        break
#endif
     :: atomic { status = truth[n]; observe(n, status); status = 0 }
     fi
  od
}

/* Webhooks tell of any moment that there was, at any later one, as often as they like. A status
 * answer from a replica behind its time is the same to the client. */
proctype Webhooks(byte n) {
end:
  do
  :: atomic { TELLS(INITIATED) -> observe(n, INITIATED) }
  :: atomic { TELLS(PROCESSING) -> observe(n, PROCESSING) }
  :: atomic { TELLS(FAILED) -> observe(n, FAILED) }
  :: atomic { TELLS(EXPIRED) -> observe(n, EXPIRED) }
  :: atomic { TELLS(COMPLETED) -> observe(n, COMPLETED) }
  od
}

/* --- What is not ours --- */

proctype Server() {
  byte n, other;
end:
  do
  :: atomic {
       network?n ->
       if
       :: skip                                                           /* lost on its way */
       :: answer(n, REJECTED)
       :: answer(n, FAULTY)
       :: other = 0;
          do
          :: other < ATTEMPTS ->
             assert(!prompted[other] || proven[other]);                  /* P1 */
             other++
          :: else -> break
          od;
          assert(!denied[n]);                                            /* P2 */
          prompted[n] = true; becomes(n, INITIATED); other = 0;
          if
          :: answer(n, PENDING)
          :: answer(n, FAULTY)
          :: skip                                                        /* its answer is lost */
          fi
       fi;
       n = 0
     }
  od
}

proctype Customer(byte n) {
end:
  prompted[n];
  if
  :: atomic { true -> becomes(n, PROCESSING) }
  :: true
  fi;
  if
  :: atomic { true -> becomes(n, COMPLETED) }
  :: atomic { true -> becomes(n, FAILED) }
  :: atomic { true -> becomes(n, EXPIRED) };
     if
     :: atomic { true -> becomes(n, COMPLETED) }                         /* late truth */
     :: true
     fi
  fi
}

init {
  atomic {
    run Server(); run Crash();
    run Caller(true); run Caller(false);
    run Customer(0); run Customer(1);
#ifdef LIVENESS
    run Waiter(0); run Waiter(1)
#else
    run Webhooks(0); run Webhooks(1)                 /* they tell all that a waiter could see */
#endif
  }
}

#ifdef LIVENESS
ltl knows { [] ((journal[0] == OPEN) -> <> IS_END(known[0])) }
#endif
