// The inner loops of rounding a layer to levels (compression/rounding.py says what is minimised).
//
// Rows are filters; they do not depend on one another once the cost of each level is known. Eight
// rows go together, so that a row of the covariance is read once for all of them. No libc, no
// memory of its own; every array is row-major.

#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum { ROWS = 8 };

// To the nearest whole number, halves to the even one, as torch.round; |x| is far below 2^22.
static float nearest(float x) {
  const float big = 12582912.0f;  // 1.5 * 2^23
  float moved = x + big;
  __asm__ volatile("" : "+m"(moved));
  return moved - big;
}

static float clamped(float x, float most) { return x > most ? most : x < -most ? -most : x; }

// Column by column, the rest making up for each error (GPTQ). Each weight becomes the nearest
// level, the one below it, or zero, as error and bits want.
//   weights  (rows, width), in the order of the columns; used up
//   upper    (width, width), upper triangular: U'U is the inverse of the covariance
//   cost     (2 most + 1,) of each level, in nats
//   levels   (rows, width), written
EXPORT int32_t round_rows(int32_t rows, int32_t width, int32_t most, float step, float half_nats,
                          float *restrict weights, const float *restrict upper,
                          const float *restrict cost, int32_t *restrict levels) {
  for (int32_t begin = 0; begin < rows; begin += ROWS) {
    const int32_t count = rows - begin < ROWS ? rows - begin : ROWS;
    float *w = weights + (int64_t)begin * width;
    int32_t *l = levels + (int64_t)begin * width;
    for (int32_t j = 0; j < width; j++) {
      const float *u = upper + (int64_t)j * width;
      const float scale = u[j];
      float errors[ROWS];
      for (int32_t r = 0; r < count; r++) {
        const float value = w[(int64_t)r * width + j];
        const float near = clamped(nearest(value / step), (float)most);
        const float choices[3] = {near, near > 0 ? near - 1 : near < 0 ? near + 1 : 0, 0};
        float best = 0, least = 0;
        for (int c = 0; c < 3; c++) {
          const float error = (value - choices[c] * step) / scale;
          const float loss = half_nats * (error * error) + cost[(int32_t)choices[c] + most];
          if (c == 0 || loss < least) {
            least = loss;
            best = choices[c];
          }
        }
        l[(int64_t)r * width + j] = (int32_t)best;
        errors[r] = (value - best * step) / scale;
      }
      for (int32_t r = 0; r < count; r++) {
        const float error = errors[r];
        float *row = w + (int64_t)r * width;
        for (int32_t t = j + 1; t < width; t++) row[t] -= error * u[t];
      }
    }
  }
  return 0;
}

// Moves a weight, and with it the pull of its row; c is the weight's row of the covariance. Returns
// whether its value changed.
static inline int32_t moved(float *restrict weight, float value, int32_t width,
                            const float *restrict c, float *restrict pull) {
  const float change = value - *weight;
  if (change == 0) return 0;
  *weight = value;
  for (int32_t t = 0; t < width; t++) pull[t] -= change * c[t];
  return 1;
}

// Coordinate descent: each column anew, with all others of its row as they are now.
//   covariance  (width, width)
//   values      (2 most + 1,) ascending, of each level
//   pull        (rows, width), half the gradient: (target - weights) @ covariance; kept up to date
//   weights, levels  (rows, width), kept up to date
// Returns how many weights changed.
EXPORT int32_t descend_rows(int32_t rows, int32_t width, int32_t most, float half_nats,
                            const float *restrict covariance, const float *restrict cost,
                            const float *restrict values, float *restrict pull,
                            float *restrict weights, int32_t *restrict levels) {
  const int32_t last = 2 * most;
  int32_t changed = 0;
  for (int32_t begin = 0; begin < rows; begin += ROWS) {
    const int32_t count = rows - begin < ROWS ? rows - begin : ROWS;
    for (int32_t j = 0; j < width; j++) {
      const float *c = covariance + (int64_t)j * width;
      const float diagonal = c[j];
      for (int32_t r = begin; r < begin + count; r++) {
        const int64_t at = (int64_t)r * width + j;
        const float now = weights[at];
        const float ideal = now + pull[at] / diagonal;
        const int32_t kept = levels[at] + most;
        int32_t near = kept;  // seldom far from what it was
        while (near < last && (values[near] + values[near + 1]) / 2 < ideal) near++;
        while (near > 0 && (values[near - 1] + values[near]) / 2 >= ideal) near--;
        const int32_t below = near > most ? near - 1 : near < most ? near + 1 : near;
        const int32_t choices[4] = {near, below, most, kept};
        int32_t best = near;
        float least = 0;
        for (int k = 0; k < 4; k++) {
          const float gap = ideal - values[choices[k]];
          const float loss = half_nats * diagonal * (gap * gap) + cost[choices[k]];
          if (k == 0 || loss < least) {
            least = loss;
            best = choices[k];
          }
        }
        levels[at] = best - most;
        changed += moved(weights + at, values[best], width, c, pull + (int64_t)r * width);
      }
    }
  }
  return changed;
}

// What the best values of groups of levels follow from: for groups a and b the sum over rows of
// m_a C m_b', and of m_a C t', with m_a the members of a (or their levels, in the group `rare`, whose
// levels share one step).
//   group     (2 most + 1,) of each level; -1 for none
//   reach     (rows, width), C t'
//   places    (width,) of room
//   products  (groups, groups), wanted (groups,): added to
EXPORT int32_t add_products(int32_t rows, int32_t width, int32_t most, int32_t groups,
                            int32_t rare, const int32_t *restrict group,
                            const float *restrict covariance, const float *restrict reach,
                            const int32_t *restrict levels, int32_t *restrict places,
                            double *restrict products, double *restrict wanted) {
  for (int32_t r = 0; r < rows; r++) {
    const int32_t *l = levels + (int64_t)r * width;
    const float *t = reach + (int64_t)r * width;
    int32_t members = 0;
    for (int32_t i = 0; i < width; i++)
      if (group[l[i] + most] >= 0) places[members++] = i;
    for (int32_t a = 0; a < members; a++) {
      const int32_t i = places[a], own = group[l[i] + most];
      const float *c = covariance + (int64_t)i * width;
      const double weight = own == rare ? (double)l[i] : 1.0;
      wanted[own] += weight * t[i];
      double *line = products + (int64_t)own * groups;
      for (int32_t b = 0; b < members; b++) {
        const int32_t j = places[b], other = group[l[j] + most];
        line[other] += weight * (other == rare ? (double)l[j] : 1.0) * c[j];
      }
    }
  }
  return 0;
}

// Coordinate descent that begins at the levels of another file and pays for each that it leaves.
//   first, last  the levels that have a value lie between them, these included
//   stay, leave  (2,) in nats: of a level that was zero, and of another one
//   far          (2 most + 1,) in nats, by how far a level goes
//   old          (rows, width), the levels of the other file
// The rest is as for descend_rows. Returns how many weights changed.
EXPORT int32_t descend_rows_like(int32_t rows, int32_t width, int32_t most, int32_t first,
                                 int32_t last, float half_nats, const float *restrict covariance,
                                 const float *restrict stay, const float *restrict leave,
                                 const float *restrict far, const float *restrict values,
                                 const int32_t *restrict old, float *restrict pull,
                                 float *restrict weights, int32_t *restrict levels) {
  int32_t changed = 0;
  first += most;
  last += most;
  for (int32_t begin = 0; begin < rows; begin += ROWS) {
    const int32_t count = rows - begin < ROWS ? rows - begin : ROWS;
    for (int32_t j = 0; j < width; j++) {
      const float *c = covariance + (int64_t)j * width;
      const float diagonal = c[j];
      for (int32_t r = begin; r < begin + count; r++) {
        const int64_t at = (int64_t)r * width + j;
        const float now = weights[at];
        const float ideal = now + pull[at] / diagonal;
        const int32_t kept = levels[at] + most, was = old[at] + most, some = was != most;
        int32_t near = kept;
        while (near < last && (values[near] + values[near + 1]) / 2 < ideal) near++;
        while (near > first && (values[near - 1] + values[near]) / 2 >= ideal) near--;
        const int32_t back = near > was ? near - 1 : near < was ? near + 1 : near;
        const int32_t choices[5] = {was, kept, near, back, most};
        int32_t best = was;
        float least = 0;
        for (int k = 0; k < 5; k++) {
          const float gap = ideal - values[choices[k]];
          const int32_t way = choices[k] > was ? choices[k] - was : was - choices[k];
          const float price = way ? leave[some] + far[way] : stay[some];
          const float loss = half_nats * diagonal * (gap * gap) + price;
          if (k == 0 || loss < least) {
            least = loss;
            best = choices[k];
          }
        }
        levels[at] = best - most;
        changed += moved(weights + at, values[best], width, c, pull + (int64_t)r * width);
      }
    }
  }
  return changed;
}
