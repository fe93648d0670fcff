/* One round of Keccak-f[1600], written once for every width.
 *
 * The includer says what a lane is: the type V, XOR3(a, b, c), ROL(a, n) with a constant n,
 * CHI(a, b, c) = a ^ (~b & c), and TARGET, the function attribute its instructions need. State is
 * V a[25], lane (x, y) at x + 5 y (Keccak reference, version 3.0, section 1.2).
 *
 * A round reads one state and writes another, row by row: each lane is dead once its row is
 * written, so that most of a round stays in 32 registers. Callers take rounds in pairs, there and
 * back, and nothing is copied. */

TARGET static inline __attribute__((always_inline)) void keccak_round(const V a[25], V e[25],
                                                                      V constant) {
    V c[5], d[5];
    /* theta; every lane by name or in loops of five, which compilers unroll into registers */
    for (int x = 0; x < 5; x++)
        c[x] = XOR3(XOR3(a[x], a[x + 5], a[x + 10]), a[x + 15], a[x + 20]);
    for (int x = 0; x < 5; x++) d[x] = c[(x + 4) % 5] ^ ROL(c[(x + 1) % 5], 1);
    /* rho and pi: lane `from` turned by n; then chi over the row that they come to stand in */
#define MOVED(from, n) ROL(a[from] ^ d[(from) % 5], n)
#define ROW(y, first, from1, n1, from2, n2, from3, n3, from4, n4)                                  \
    {                                                                                              \
        V b0 = first, b1 = MOVED(from1, n1), b2 = MOVED(from2, n2);                                \
        V b3 = MOVED(from3, n3), b4 = MOVED(from4, n4);                                            \
        e[y] = CHI(b0, b1, b2);                                                                    \
        e[y + 1] = CHI(b1, b2, b3);                                                                \
        e[y + 2] = CHI(b2, b3, b4);                                                                \
        e[y + 3] = CHI(b3, b4, b0);                                                                \
        e[y + 4] = CHI(b4, b0, b1);                                                                \
    }
    ROW(0, a[0] ^ d[0], 6, 44, 12, 43, 18, 21, 24, 14)
    e[0] = e[0] ^ constant; /* iota */
    ROW(5, MOVED(3, 28), 9, 20, 10, 3, 16, 45, 22, 61)
    ROW(10, MOVED(1, 1), 7, 6, 13, 25, 19, 8, 20, 18)
    ROW(15, MOVED(4, 27), 5, 36, 11, 10, 17, 15, 23, 56)
    ROW(20, MOVED(2, 62), 8, 55, 14, 39, 15, 41, 21, 2)
#undef ROW
#undef MOVED
}
