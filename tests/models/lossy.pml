/* A lossy ring: can a consumer ever take a torn record for a good one?
 *
 * The ring of include/dpdk_bindings/ring.h, as small as it can be and still wrap in slots and
 * payload: 3 slots, 3 words of payload, records of 1 or 2 words. Word for word every payload word
 * of record s holds s.
 *
 * The producer's stores go through a buffer from which they reach memory in any order that C11
 * allows: not past an earlier store to the same place, not past a release fence, and a release
 * store not before what precedes it. The consumer's loads between its acquire load and its acquire
 * fence happen in any order. Left out: loads of values that were never in memory.
 *
 * Each of these takes one thing away, and then the assertion must fail (the test sees to it):
 *   NO_BUSY      the slot is not marked before it is written
 *   NO_RETIRE    payload space is reused before the older record's slot says it is gone
 *   NO_FENCE     no release fence between the marks and the payload
 *   NO_RELEASE   the sequence number is stored relaxed
 *   NO_RECHECK   the consumer does not look again
 *   NO_ACQUIRE   the consumer may look again before it has copied
 */
#ifndef RECORDS
#define RECORDS 4
#endif
#define DEPTH 3
#define WORDS 3

/* Memory: seq of slots 0 1 2, meta of slots 0 1 2 (payload place * 4 + length), payload words. */
#define SEQ(s) ((s) % DEPTH)
#define META(s) (DEPTH + (s) % DEPTH)
#define PAY(p) (2 * DEPTH + (p) % WORDS)
byte mem[9];

/* The producer's store buffer. */
#define ROOM 8
typedef store { byte at; byte value; byte group; bit release };
store pending[ROOM];
byte n = 0, group = 0;
bool finished = false;

byte truth[8];        /* what record s's meta really is */

inline put(a, v, r) {
    n < ROOM;
    d_step { pending[n].at = a; pending[n].value = v; pending[n].group = group;
             pending[n].release = r; n++ }
}

/* Lets one buffered store reach memory, if it may. */
proctype memory() {
    byte i, j;
    bool may;
    do
    :: atomic { n > 0 ->
        /* any candidate */
        i = 0;
        do
        :: i + 1 < n -> i++
        :: break
        od;
        d_step {
            may = true;
            j = 0;
            do
            :: j < i ->
                if
                :: pending[j].at == pending[i].at || pending[j].group != pending[i].group ||
                   pending[i].release -> may = false
                :: else
                fi;
                j++
            :: else -> break
            od;
            if
            :: may ->
                mem[pending[i].at] = pending[i].value;
                do
                :: i + 1 < n ->
                    pending[i].at = pending[i + 1].at; pending[i].value = pending[i + 1].value;
                    pending[i].group = pending[i + 1].group;
                    pending[i].release = pending[i + 1].release; i++
                :: else -> break
                od;
                n--;
                pending[n].at = 0; pending[n].value = 0; pending[n].group = 0;
                pending[n].release = 0;
                if
                :: n == 0 -> group = 0 /* nothing to be kept apart from */
                :: else
                fi
            :: else
            fi;
            i = 0; j = 0; may = false
        } }
    :: finished && n == 0 -> break
    od
}

proctype producer() {
    byte s = 1, words, pos = 0, p, oldest = 1, i;
    byte where[8];   /* private: where record s's payload begins */
    do
    :: s > RECORDS -> break
    :: else ->
        if
        :: words = 1
        :: words = 2
        fi;
        p = pos;
        if
        :: p % WORDS + words > WORDS -> p = p + WORDS - p % WORDS
        :: else
        fi;
        /* reserve */
        do
        :: oldest < s && p + words > where[oldest] + WORDS ->
#ifndef NO_RETIRE
            put(SEQ(oldest), oldest + 1, 0);
#endif
            oldest++
        :: else -> break
        od;
#ifdef NO_FENCE
        skip;
#else
        group++;
#endif
        /* write */
        d_step { where[s] = p; truth[s] = (p % WORDS) * 4 + words };
        i = 0;
        do
        :: i < words -> put(PAY(p + i), s, 0); i++
        :: else -> break
        od;
        /* commit */
        put(META(s), truth[s], 0);
#ifdef NO_RELEASE
        put(SEQ(s), s, 0);
#else
        put(SEQ(s), s, 1);
#endif
        pos = p + words;
        s++;
        /* mark, ahead of time */
#ifndef NO_BUSY
        put(SEQ(s), s - 1, 0);
#endif
        if
        :: s >= oldest + DEPTH -> oldest = s - DEPTH + 1
        :: else
        fi
    od;
    finished = true
}

proctype consumer() {
    byte next = 1, seen, meta, words, a, b, again;
    bool early;
    do
    :: next > RECORDS -> break
    :: finished && n == 0 && mem[SEQ(next)] < next -> break
    :: else ->
        seen = mem[SEQ(next)];
        if
        :: seen < next
        :: seen > next -> next++          /* overrun */
        :: else ->
            early = false;
#ifdef NO_ACQUIRE
            if
            :: again = mem[SEQ(next)]; early = true
            :: true
            fi;
#endif
            meta = mem[META(next)];
            words = meta % 4;
            /* a length from a torn meta may be anything; the bounds are checked in C */
            a = next; b = next;
            if
            :: words >= 1 && words <= 2 && meta / 4 + words <= WORDS ->
                if
                :: a = mem[PAY(meta / 4)];
                   if :: words == 2 -> b = mem[PAY(meta / 4 + 1)] :: else fi
                :: if :: words == 2 -> b = mem[PAY(meta / 4 + 1)] :: else fi;
                   a = mem[PAY(meta / 4)]
                fi
            :: else
            fi;
            if
            :: early
            :: else -> again = mem[SEQ(next)]
            fi;
#ifdef NO_RECHECK
            again = next;
#endif
            if
            :: again != next -> next++    /* overrun */
            :: else ->
                assert(meta == truth[next] && a == next && b == next);
                next++
            fi
        fi;
        seen = 0; meta = 0; words = 0; a = 0; b = 0; again = 0
    od
}

init { atomic { run memory(); run producer(); run consumer() } }
