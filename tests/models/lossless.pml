/* A lossless ring: is a record that was published, and that a seat has not acknowledged, ever lost?
 *
 * The credits of include/dpdk_bindings/ring.h: 2 slots, two seats. The first is sat in from the
 * beginning, by a consumer that may die at any point and is succeeded; the second is taken while
 * records flow. The producer may die between any two stores, and is succeeded by one that
 * recovers as native/ring_file.c does. (Death stops a process from issuing stores; what it issued
 * reaches memory.)
 *
 * `reclaimed` and the joining seat's state, the two words that meet crosswise, go through a store
 * buffer of one each; the full fences wait for it. How a record is written is the business of
 * lossy.pml.
 *
 * Each of these takes one thing away, and then an assertion must fail (the test sees to it):
 *   NO_RECHECK   the producer uses credit without reading the seats a second time
 *   NO_FENCE     no full fences
 *   NO_JOINING   a seat does not hold everything while it is being taken
 *   NO_TRUTH     a new producer believes `reclaimed` without asking the seats
 *   NO_SCAN      a new producer believes `head` without looking at the slots
 *   LOAD_TWICE   a new producer reads what a seat acknowledged, and then reads it again
 *   ACK_ALL      a successor starts behind what was polled instead of what was acknowledged
 */
#ifndef RECORDS
#define RECORDS 4
#endif
#define DEPTH 2
#define NONE 255
#define FREE 0
#define JOINING 1
#define TAKEN 2

byte slot[DEPTH];                 /* seq of each slot */
byte head = 0, reclaimed = 0;
byte seat_state[2], seat_acked[2];
byte buffered_reclaimed = NONE;   /* the producer's store buffer */
byte buffered_state = NONE;       /* the joiner's */
byte returned = 0;                /* ghost: newest record whose publish returned */
byte taken = 0;                   /* ghost: newest record that anyone in the first seat was given */
byte deaths = 2;                  /* how many may still die */
bool join_lock = false, done = false;

active proctype buffers() {
    do
    :: atomic { buffered_reclaimed != NONE -> reclaimed = buffered_reclaimed;
                buffered_reclaimed = NONE }
    :: atomic { buffered_state != NONE -> seat_state[1] = buffered_state; buffered_state = NONE }
    :: done && buffered_reclaimed == NONE && buffered_state == NONE -> break
    od
}

inline store_reclaimed(v) {
    atomic { buffered_reclaimed == NONE -> buffered_reclaimed = v }
}

/* One load: compared and taken over by the same value. (Two loads lose records.) */
inline lower(into, which) {
#ifdef LOAD_TWICE
    if
    :: seat_acked[which] < into -> into = seat_acked[which]
    :: else
    fi
#else
    atomic {
        if
        :: seat_acked[which] < into -> into = seat_acked[which]
        :: else
        fi
    }
#endif
}

/* What every seat has acknowledged; one seat after the other, as the loop in C does. */
inline least(into) {
    into = NONE;
    if
    :: seat_state[0] == TAKEN -> lower(into, 0)
    :: else
    fi;
    if
    :: seat_state[1] == FREE
    :: seat_state[1] == JOINING -> into = 0
    :: seat_state[1] == TAKEN -> lower(into, 1)
    fi;
}

proctype producer() {
    byte s, floor, acked, again, mine;
recover:
    atomic { s = 0; floor = 0; acked = 0; again = 0; mine = 0 };
    buffered_reclaimed == NONE;
    atomic { !join_lock -> join_lock = true };
    mine = head;
#ifndef NO_SCAN
    do
    :: slot[(mine + 1) % DEPTH] == mine + 1 -> mine++
    :: else -> break
    od;
#endif
    assert(mine >= returned);     /* what was published is still there */
    head = mine;
    floor = reclaimed;
#ifndef NO_TRUTH
    if
    :: seat_state[0] == TAKEN -> lower(floor, 0)
    :: else
    fi;
    if
    :: seat_state[1] == TAKEN -> lower(floor, 1)
    :: else
    fi;
    reclaimed = floor;
#endif
    join_lock = false;
    s = mine + 1;
    do
    :: s > RECORDS -> break
    :: atomic { deaths > 0 -> deaths--; goto recover }
    :: s <= RECORDS && s - floor > DEPTH ->
        least(acked);
        if
        :: acked != NONE && acked > floor ->
            store_reclaimed(acked);
            if
            :: atomic { deaths > 0 -> deaths--; goto recover }
            :: true
            fi;
#ifndef NO_FENCE
            buffered_reclaimed == NONE;
#endif
#ifdef NO_RECHECK
            again = acked;
#else
            least(again);
#endif
            if
            :: again < acked -> store_reclaimed(floor)
            :: else -> floor = acked
            fi
        :: else
        fi
    :: s <= RECORDS && s - floor <= DEPTH ->
        assert(s > taken);        /* nobody was given another record of this number */
        slot[s % DEPTH] = s - 1;
        if
        :: atomic { deaths > 0 -> deaths--; goto recover }
        :: true
        fi;
        slot[s % DEPTH] = s;
        if
        :: atomic { deaths > 0 -> deaths--; goto recover }
        :: true
        fi;
        head = s;
        returned = s;
        s++
    od
}

proctype first() {
    byte next = 1;
    do
    :: next > RECORDS -> seat_acked[0] = RECORDS; break
    :: slot[next % DEPTH] == next ->
        assert(next <= taken + 1);    /* none passed over, whoever sat here */
        if :: next > taken -> taken = next :: else fi;
        next++;
        if
        :: seat_acked[0] = next - 1
        :: true
        fi
    :: slot[next % DEPTH] > next -> assert(false)
    :: seat_acked[0] < next - 1 -> seat_acked[0] = next - 1
    :: atomic { deaths > 0 -> deaths--;
#ifdef ACK_ALL
        next = next + 1
#else
        next = seat_acked[0] + 1
#endif
      }
    od
}

proctype joiner() {
    byte next, from;
    atomic { !join_lock -> join_lock = true };
#ifndef NO_JOINING
    buffered_state = JOINING;
#endif
#ifndef NO_FENCE
    buffered_state == NONE;
#endif
    from = reclaimed;
    seat_acked[1] = from;
    /* a release store: after the one before it */
    buffered_state == NONE;
    buffered_state = TAKEN;
    buffered_state == NONE;           /* a lock that is let go publishes what came before */
    join_lock = false;
    next = from + 1;
    do
    :: next > RECORDS -> seat_acked[1] = RECORDS; break
    :: slot[next % DEPTH] == next -> next++; seat_acked[1] = next - 1
    :: slot[next % DEPTH] > next -> assert(false)
    od;
    done = true
}

init {
    atomic { seat_state[0] = TAKEN; run producer(); run first(); run joiner() }
}
