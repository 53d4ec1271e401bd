/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   What a step of pair_style nbody does: up the levels, and down again.
------------------------------------------------------------------------- */

#include "pair_nbody.h"

#include "nbody_block.h"
#include "nbody_network.h"
#include "nbody_states.h"
#include "nbody_torch.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "neigh_list.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>

using namespace LAMMPS_NS;

// in eV and eV/Angstrom: beyond it, atoms are at one place, and velocities would soon overflow

static constexpr double LARGEST_RESULT = 1e30;

/* ---------------------------------------------------------------------- */

void PairNBody::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  find_parts();
  if (network->members > 1)
    fmember.assign((size_t) network->members * (atom->nlocal + atom->nghost) * 3, 0.0);
  laststep = update->ntimestep;

  try {
    const NBodyOneThread one_thread;
    for (int member = 0; member < network->members; member++) {
      climb(member);
      descend(member);
    }
  } catch (std::exception &e) {
    error->one(FLERR, "Pair style nbody: {}", e.what());
  }
}

/* ----------------------------------------------------------------------
   which atoms are centers of parts, and where the states of those are that the level above
   needs. The composition alone decides this
------------------------------------------------------------------------- */

void PairNBody::find_parts()
{
  const int nall = atom->nlocal + atom->nghost, nlevels = network->nlevels;
  const int *const type = atom->type;
  const auto &levels = network->levels;

  parts.resize(nlevels);
  rowof.resize(nlevels);
  nrows.assign(nlevels, 0);
  for (int n = 0; n < nlevels; n++) {
    parts[n].clear();
    for (int ii = 0; ii < list->inum; ii++) {
      const int i = list->ilist[ii], s = speciesof[type[i]];
      if (s >= 0 && levels[n].parts[s]) parts[n].push_back(i);
    }
    rowof[n].assign(n < nlevels - 1 ? nall : 0, -1);
    for (size_t i = 0; i < rowof[n].size(); i++) {
      const int s = speciesof[type[i]];
      if (s >= 0 && levels[n].parts[s] && (levels[n + 1].parts[s] || levels[n + 1].children[s]))
        rowof[n][i] = nrows[n]++;
    }
  }
}

/* ----------------------------------------------------------------------
   up the levels: states of all parts that the last level needs
------------------------------------------------------------------------- */

void PairNBody::climb(int member)
{
  for (int n = 0; n < network->nlevels - 1; n++) {
    states[n].resize(nrows[n]);
    std::vector<int> needed, rows;
    for (int i : parts[n])
      if (rowof[n][i] >= 0) needed.push_back(i);
    for (size_t first = 0; first < needed.size(); first += network->levels[n].block) {
      build_block(n, needed, (int) first);
      const NBodyResult found = network->up(member, n, *block, n ? &states[n - 1] : nullptr);
      rows.clear();
      for (int i : block->part) rows.push_back(rowof[n][i]);
      states[n].scatter(rows.data(), (int) rows.size(), found, false);
    }
    send_states(n);
  }
}

/* ----------------------------------------------------------------------
   down the levels: energies, forces, and derivatives with respect to the states below
------------------------------------------------------------------------- */

void PairNBody::descend(int member)
{
  for (int n = network->nlevels - 1; n >= 0; n--) {
    const bool last = n == network->nlevels - 1;
    if (n > 0) slopes[n - 1].resize(nrows[n - 1]);
    std::vector<int> rows;
    for (size_t first = 0; first < parts[n].size(); first += network->levels[n].block) {
      build_block(n, parts[n], (int) first);
      rows.assign(block->nparts, -1);
      if (!last)
        for (int p = 0; p < block->nreal; p++) rows[p] = rowof[n][block->part[p]];
      const auto found = network->down(member, n, *block, n ? &states[n - 1] : nullptr,
                                       last ? nullptr : &slopes[n], rows);
      if (eflag_either) tally_energies(found[0]);
      tally_forces(found[1], member);
      if (n > 0) slopes[n - 1].scatter(block->rows.data(), block->nrows, found[2], true);
    }
    if (n > 0) return_slopes(n - 1);
  }
  if (!eflag_either || member > 0) return;

  // energies of isolated atoms, once

  for (int ii = 0; ii < list->inum; ii++) {
    const int i = list->ilist[ii], s = speciesof[atom->type[i]];
    if (s < 0) continue;
    if (eflag_global) eng_vdwl += network->isolated[s];
    if (eflag_atom) eatom[i] += network->isolated[s];
  }
}

/* ----------------------------------------------------------------------
   the messages of a level: states to the ghosts, and slopes back to their owners. LAMMPS of
   before 2025 takes the size of a row from comm_forward and comm_reverse alone, and sizes its
   buffers by them before each run
------------------------------------------------------------------------- */

void PairNBody::send_states(int n)
{
  const int largest = comm_forward;
  commlevel = n;
  comm_forward = states[n].doubles();
  comm->forward_comm(this);
  comm_forward = largest;
}

void PairNBody::return_slopes(int n)
{
  const int largest = comm_reverse;
  commlevel = n;
  comm_reverse = slopes[n].doubles();
  comm->reverse_comm(this);
  comm_reverse = largest;
}

/* ---------------------------------------------------------------------- */

void PairNBody::build_block(int n, const std::vector<int> &centers, int first)
{
  const auto &level = network->levels[n];
  const NBodyAtoms atoms = {atom->x, atom->type, speciesof.data(), list->numneigh,
                            list->firstneigh};
  const int count = std::min(level.block, (int) centers.size() - first);
  if (n == 0)
    block->build(level, atoms, &centers[first], count);
  else
    block->build(level, atoms, &centers[first], count, rowof[n - 1]);
}

/* ---------------------------------------------------------------------- */

void PairNBody::tally_energies(const NBodyResult &energies)
{
  const double share = 1.0 / network->members;
  for (int p = 0; p < block->nreal; p++) {
    const int64_t place = p * energies.strides[0];
    const double energy = share *
        (network->is_double ? ((const double *) energies.data)[place]
                            : ((const float *) energies.data)[place]);
    if (!(std::fabs(energy) < LARGEST_RESULT)) refuse("an energy");
    if (eflag_global) eng_vdwl += energy;
    if (eflag_atom) eatom[block->part[p]] += energy;
  }
}

/* ----------------------------------------------------------------------
   with g_ij = dE/dr_ij: F_i += g_ij, F_j -= g_ij, and either end has half of the virial
   - r_ij g_ij. In a model of one level, energy flows to the child j, so that the centroid
   virial of j has all of it
------------------------------------------------------------------------- */

void PairNBody::tally_forces(const NBodyResult &gradient, int member)
{
  const double share = 1.0 / network->members;
  double **const f = atom->f;
  double *const fm = network->members > 1
      ? fmember.data() + (size_t) member * (atom->nlocal + atom->nghost) * 3
      : nullptr;

  block->edges(gradient, [&](int i, int j, const double *r, const double *g) {
    if (!(std::fabs(g[0]) + std::fabs(g[1]) + std::fabs(g[2]) < LARGEST_RESULT)) refuse("a force");
    for (int a = 0; a < 3; a++) {
      f[i][a] += share * g[a];
      f[j][a] -= share * g[a];
    }
    if (fm)
      for (int a = 0; a < 3; a++) {
        fm[3 * i + a] += g[a];
        fm[3 * j + a] -= g[a];
      }
    if (!vflag_either) return;

    const double v[6] = {-share * r[0] * g[0],
                         -share * r[1] * g[1],
                         -share * r[2] * g[2],
                         -share * 0.5 * (r[0] * g[1] + r[1] * g[0]),
                         -share * 0.5 * (r[0] * g[2] + r[2] * g[0]),
                         -share * 0.5 * (r[1] * g[2] + r[2] * g[1])};
    if (vflag_global)
      for (int k = 0; k < 6; k++) virial[k] += v[k];
    if (vflag_atom)
      for (int k = 0; k < 6; k++) {
        vatom[i][k] += 0.5 * v[k];
        vatom[j][k] += 0.5 * v[k];
      }
    if (cvflag_atom) {
      static constexpr int first[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2};
      static constexpr int second[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
      for (int k = 0; k < 9; k++) cvatom[j][k] -= share * r[first[k]] * g[second[k]];
    }
  });
}

/* ----------------------------------------------------------------------
   no run goes on with a number that is not finite, or absurd. As in Python, the error names the
   closest atoms, here of the block that is being evaluated
------------------------------------------------------------------------- */

void PairNBody::refuse(const char *what)
{
  int closest[2] = {-1, -1};
  double least = INFINITY;
  block->pairs([&](int i, int j, const double *r) {
    const double square = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
    if (square >= least) return;    // false for atoms at places that are not finite
    least = square;
    closest[0] = i;
    closest[1] = j;
  });
  std::string where = "no two atoms near it are within the radius: it is the model that is at fault";
  if (closest[0] >= 0) {
    char distance[16];
    snprintf(distance, sizeof(distance), "%.3g", std::sqrt(least));
    std::string names;
    if (atom->tag_enable)
      names = ", " + std::to_string(atom->tag[closest[0]]) + " and " +
          std::to_string(atom->tag[closest[1]]) + ",";
    where = "the closest atoms near it" + names + " are " + distance + " Angstrom apart";
  }
  throw std::runtime_error(std::string("the model gave ") + what +
                           " that is not finite or absurdly large: " + where);
}

/* ----------------------------------------------------------------------
   only atoms whose parts the level above needs have something to say, and both sides know
   the types of these atoms. atom_of gives the atom of each place in a message
------------------------------------------------------------------------- */

template <typename ATOM_OF>
static int pack(const NBodyStates &level, const std::vector<int> &rows, int n, ATOM_OF atom_of,
                double *buf)
{
  int m = 0;
  for (int k = 0; k < n; k++) {
    const int row = rows[atom_of(k)];
    if (row < 0) continue;
    level.pack(row, &buf[m]);
    m += level.doubles();
  }
  return m;
}

template <typename ATOM_OF>
static void unpack(NBodyStates &level, const std::vector<int> &rows, int n, ATOM_OF atom_of,
                   const double *buf, bool add)
{
  for (int k = 0; k < n; k++) {
    const int row = rows[atom_of(k)];
    if (row < 0) continue;
    level.unpack(row, buf, add);
    buf += level.doubles();
  }
}

int PairNBody::pack_forward_comm(int n, int *list, double *buf, int /*pbc_flag*/, int * /*pbc*/)
{
  return pack(states[commlevel], rowof[commlevel], n, [=](int k) { return list[k]; }, buf);
}

void PairNBody::unpack_forward_comm(int n, int first, double *buf)
{
  unpack(states[commlevel], rowof[commlevel], n, [=](int k) { return first + k; }, buf, false);
}

int PairNBody::pack_reverse_comm(int n, int first, double *buf)
{
  return pack(slopes[commlevel], rowof[commlevel], n, [=](int k) { return first + k; }, buf);
}

void PairNBody::unpack_reverse_comm(int n, int *list, double *buf)
{
  unpack(slopes[commlevel], rowof[commlevel], n, [=](int k) { return list[k]; }, buf, true);
}
