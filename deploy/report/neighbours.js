(() => {  // previous and next patient, in the order of the index
  const order = window.gradePatients || [], here = document.body.dataset.patient;
  const at = order.findIndex(([id]) => id === here), place = document.getElementById("neighbours");
  if (at < 0) return;
  for (const [step, said] of [[-1, "← Previous"], [1, "Next →"]]) {
    let next = at + step;
    while (order[next] && !order[next][1]) next += step;
    if (!order[next]) continue;
    const link = document.createElement("a");
    link.href = order[next][1];
    link.rel = step < 0 ? "prev" : "next";
    link.title = order[next][0];
    link.textContent = said;
    place.append(link);
  }
  place.append(`${at + 1} of ${order.length}`);
})();
