/* One round of Keccak-f[1600], written once for every width.
 *
 * The includer says what a lane is: the type V, XOR3(a, b, c), ROL(a, n) with a constant n,
 * CHI(a, b, c) = a ^ (~b & c), and TARGET, the function attribute its instructions need. State is
 * V a[25], lane (x, y) at x + 5 y (Keccak reference, version 3.0, section 1.2). */

TARGET static inline __attribute__((always_inline)) void keccak_round(V a[25], V constant) {
    V b[25], c[5], d[5];
    /* theta; every lane by name or in loops of five, which compilers unroll into registers */
    for (int x = 0; x < 5; x++)
        c[x] = XOR3(XOR3(a[x], a[x + 5], a[x + 10]), a[x + 15], a[x + 20]);
    for (int x = 0; x < 5; x++) d[x] = c[(x + 4) % 5] ^ ROL(c[(x + 1) % 5], 1);
    for (int x = 0; x < 5; x++) {
        a[x] = a[x] ^ d[x];
        a[x + 5] = a[x + 5] ^ d[x];
        a[x + 10] = a[x + 10] ^ d[x];
        a[x + 15] = a[x + 15] ^ d[x];
        a[x + 20] = a[x + 20] ^ d[x];
    }
    /* rho and pi: lane `from` turned by n goes to lane `to` */
#define MOVE(to, from, n) b[to] = ROL(a[from], n)
    b[0] = a[0];
    MOVE(1, 6, 44);
    MOVE(2, 12, 43);
    MOVE(3, 18, 21);
    MOVE(4, 24, 14);
    MOVE(5, 3, 28);
    MOVE(6, 9, 20);
    MOVE(7, 10, 3);
    MOVE(8, 16, 45);
    MOVE(9, 22, 61);
    MOVE(10, 1, 1);
    MOVE(11, 7, 6);
    MOVE(12, 13, 25);
    MOVE(13, 19, 8);
    MOVE(14, 20, 18);
    MOVE(15, 4, 27);
    MOVE(16, 5, 36);
    MOVE(17, 11, 10);
    MOVE(18, 17, 15);
    MOVE(19, 23, 56);
    MOVE(20, 2, 62);
    MOVE(21, 8, 55);
    MOVE(22, 14, 39);
    MOVE(23, 15, 41);
    MOVE(24, 21, 2);
#undef MOVE
    /* chi and iota */
    for (int y = 0; y < 25; y += 5)
        for (int x = 0; x < 5; x++)
            a[y + x] = CHI(b[y + x], b[y + (x + 1) % 5], b[y + (x + 2) % 5]);
    a[0] = a[0] ^ constant;
}
