// The viewer of a patient's page: four linked NiiVue canvases over what the page holds. Without WebGL 2 nothing changes.
(async () => {
  const scene = JSON.parse(document.getElementById("scene").textContent);
  const viewer = document.getElementById("viewer");
  const $ = name => viewer.querySelector(`[data-part="${name}"]`);
  if (!document.createElement("canvas").getContext("webgl2") || typeof DecompressionStream === "undefined") {
    document.getElementById("no-viewer").hidden = false;
    return;
  }

  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const inflate = async (text, kind) =>
    new Uint8Array(await new Response(new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream(kind))).arrayBuffer());
  if (scene.niivue) {
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await inflate(document.getElementById("niivue").textContent, "deflate"));
    document.head.append(script);
  }
  if (!window.niivue) { document.getElementById("no-viewer").hidden = false; return; }

  const restored = (rest, [nx, ny, nz]) => {  // each voxel is what is left plus the median of three neighbours
    const slab = nx * ny;
    for (let z = 0, at = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++, at++) {
      const a = x ? rest[at - 1] : 0, b = y ? rest[at - nx] : 0, c = z ? rest[at - slab] : 0;
      rest[at] += a < b ? (c < a ? a : c > b ? b : c) : (c < b ? b : c > a ? a : c);
    }
    return rest;
  };
  const file = (head, voxels) => {
    const start = bytes(head), whole = new Uint8Array(start.length + voxels.byteLength);
    whole.set(start);
    whole.set(new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength), start.length);
    return whole.buffer;
  };
  const text = id => document.getElementById(id).textContent;

  const evidence = new Int16Array((await inflate(text("evidence"), "gzip")).buffer);
  // NiiVue's opacity grows with the square of a value: of the root, so that it grows with the evidence.
  const roots = evidence.map(value => Math.sign(value) * 1000 * Math.sqrt(Math.min(Math.abs(value) / 1000 / scene.scale, 1)));
  const region = await inflate(text("region"), "gzip");
  const rim = along => {  // voxels of the region with a neighbour outside it, in the planes across an axis, or any
    const [nx, ny, nz] = scene.shape, steps = [1, nx, nx * ny], found = new Uint8Array(region.length);
    for (let z = 1, slab = nx * ny; z < nz - 1; z++) for (let y = 1; y < ny - 1; y++) for (let x = 1; x < nx - 1; x++) {
      const at = x + y * nx + z * slab;
      if (region[at]) found[at] = steps.some((step, axis) => axis !== along && !(region[at - step] && region[at + step]));
    }
    return found;
  };
  const BLACK = 1;  // level at first: the brain's darkest
  // A window maps the levels and leaves NiiVue's range alone: what is at the range's lower end is background to NiiVue, and gets no evidence.
  const windowed = (low, high) => {  // the lowest level, outside the brain, stays black
    const at = [...Array(256).keys()], shade = level => Math.min(255, Math.max(0, 255 * (level - low) / Math.max(high - low, 1e-6)));
    const grey = at.map(place => place && shade(place / 255 * scene.levels));
    return { R: grey, G: grey, B: grey, A: at.map(place => place && 255), I: at };
  };
  const flat = (r, g, b) => ({ R: [r, r, r], G: [g, g, g], B: [b, b, b], A: [0, 255, 255], I: [0, 1, 255] });
  const options = {
    backColor: [0, 0, 0, 1], crosshairColor: [0.2, 0.9, 0.4, 0.75], crosshairWidth: 0.7, crosshairWidthUnit: "mm", crosshairGap: 8, isRadiologicalConvention: true,
    isOrientationTextVisible: true, showAllOrientationMarkers: true, fontSizeScaling: 0.6, fontMinPx: 13, fontColor: [1, 0.9, 0.4, 1],
    show3Dcrosshair: false, dragAndDropEnabled: false, loadingText: "", logLevel: "silent", multiplanarShowRender: 0,
  };
  const N = window.niivue, names = Object.keys(scene.images), views = [];
  for (const name of names) {
    const nv = new N.Niivue(options);
    await nv.attachToCanvas($(name));
    nv.addColormap("for-hgg", flat(255, 115, 26));
    nv.addColormap("for-lgg", flat(51, 140, 255));
    nv.addColormap("outline", flat(255, 255, 255));
    nv.backgroundMasksOverlays = 1;
    const grey = restored(await inflate(text(`image-${name}`), "gzip"), scene.shape);
    const { head, white } = scene.images[name];
    nv.addColormap(`window-${name}`, windowed(BLACK, white));
    const image = await N.NVImage.new(file(head, grey), `${name}.nii`, `window-${name}`, 1, null, 0, scene.levels);
    const map = await N.NVImage.new(file(scene.evidence, roots), "evidence.nii", "for-hgg", 0.75);
    Object.assign(map, { colormapNegative: "for-lgg", colormapType: 1, cal_min: 1, cal_max: 2, cal_minNeg: -2, cal_maxNeg: -1 });
    const outline = await N.NVImage.new(file(head, new Uint8Array(region.length)), "outline.nii", "outline", 1);
    Object.assign(outline, { cal_min: 0.5, cal_max: 1 });
    Object.assign(image, { robust_min: BLACK, robust_max: white });
    nv.onIntensityChange = shown => {  // the right mouse button was dragged, or a finger held
      nv.addColormap(`window-${name}`, windowed(shown.cal_min, shown.cal_max));
      Object.assign(shown, { cal_min: 0, cal_max: scene.levels });
    };
    nv.volumes.push(image, map, outline);
    nv.setVolume(image, 0);  // all at once: each change draws everything again
    views.push(nv);
  }

  const PLANES = { axial: [2, N.SLICE_TYPE.AXIAL], coronal: [1, N.SLICE_TYPE.CORONAL], sagittal: [0, N.SLICE_TYPE.SAGITTAL], all: [2, N.SLICE_TYPE.MULTIPLANAR] };
  const slider = $("slice"), told = $("told");
  let plane = "axial", voxel = [...scene.voxel], big = null;
  const axis = () => PLANES[plane][0];
  const chosen = () => views.filter((_, number) => big === null || names[number] === big);
  const tell = () => {
    slider.max = scene.shape[axis()] - 1;
    slider.value = voxel[axis()];
    const from = ["from the patient's left", "from the back", "from below"][axis()];
    told.textContent = `${plane === "all" ? "axial" : plane} slice ${voxel[axis()] + 1} of ${scene.shape[axis()]}, ${from}`;
    slider.setAttribute("aria-valuetext", told.textContent);
    viewer.dataset.voxel = voxel.join(" ");
  };
  const show = () => {
    for (const nv of views) { nv.scene.crosshairPos = nv.vox2frac(voxel); nv.drawScene(); }
    tell();
  };
  const move = (steps, along = axis()) => {
    voxel[along] = Math.min(scene.shape[along] - 1, Math.max(0, voxel[along] + steps));
    show();
  };
  const turn = to => {
    plane = to;
    const line = rim(to === "all" ? -1 : axis());
    views.forEach(nv => {
      nv.volumes[2].img.set(line);
      nv.updateGLVolume();
      nv.setSliceType(PLANES[to][1]);
    });
    viewer.querySelectorAll("[data-plane]").forEach(button => button.setAttribute("aria-pressed", String(button.dataset.plane === to)));
    show();
  };
  const enlarge = name => {
    big = big === name ? null : name;
    viewer.classList.toggle("one", big !== null);
    viewer.querySelectorAll("[data-tile]").forEach(tile => tile.classList.toggle("big", tile.dataset.tile === big));
    viewer.querySelectorAll("[data-enlarge]").forEach(button => button.setAttribute("aria-pressed", String(button.dataset.enlarge === big)));
    views.forEach(nv => nv.resizeListener());
    show();
  };
  const window_ = () => {
    const width = 2 ** -Number($("contrast").value), middle = -Number($("brightness").value);
    views.forEach((nv, number) => {
      if (!chosen().includes(nv)) return;
      const half = (scene.images[names[number]].white - BLACK) / 2, centre = BLACK + half + 2 * half * middle;
      nv.addColormap(`window-${names[number]}`, windowed(centre - half * width, centre + half * width));
      nv.updateGLVolume();
    });
  };
  const cover = () => views.forEach(nv => {
    nv.volumes[1].opacity = $("show").checked ? Number($("opacity").value) : 0;
    nv.volumes[2].opacity = $("outline").checked ? 1 : 0;
    nv.updateGLVolume();
  });
  const reset = () => {
    $("contrast").value = $("brightness").value = 0;
    $("opacity").value = 0.75;
    views.forEach(nv => { nv.setPan2Dxyzmm([0, 0, 0, 1]); });
    window_();
    cover();
    home();
  };
  const home = () => { voxel = [...scene.voxel]; show(); };

  views.forEach((nv, number) => {
    nv.onLocationChange = place => {
      const found = place.vox.slice(0, 3).map((value, along) => Math.min(scene.shape[along] - 1, Math.max(0, Math.round(value))));
      if (found.every((value, along) => value === voxel[along])) return;
      voxel = found;
      views.forEach((other, at) => { if (at !== number) { other.scene.crosshairPos = other.vox2frac(voxel); other.drawScene(); } });
      tell();
    };
  });
  slider.addEventListener("input", () => move(Number(slider.value) - voxel[axis()]));
  viewer.querySelectorAll("[data-plane]").forEach(button => button.addEventListener("click", () => turn(button.dataset.plane)));
  viewer.querySelectorAll("[data-enlarge]").forEach(button => button.addEventListener("click", () => enlarge(button.dataset.enlarge)));
  viewer.querySelectorAll("canvas").forEach(canvas => {
    canvas.tabIndex = -1;
    canvas.addEventListener("dblclick", event => {  // NiiVue's own takes the window back
      event.stopImmediatePropagation();
      enlarge(canvas.dataset.part);
    }, { capture: true });
    canvas.addEventListener("wheel", event => {  // one slice a notch, in the plane that is shown
      event.preventDefault();
      event.stopImmediatePropagation();
      move(event.deltaY > 0 ? -1 : 1);
    }, { capture: true, passive: false });
  });
  ["contrast", "brightness"].forEach(part => $(part).addEventListener("input", window_));
  ["show", "outline", "opacity"].forEach(part => $(part).addEventListener("input", cover));
  $("home").addEventListener("click", home);
  $("reset").addEventListener("click", reset);
  const keys = {
    ArrowUp: () => move(1), ArrowDown: () => move(-1), ArrowRight: () => move(1), ArrowLeft: () => move(-1), PageUp: () => move(10), PageDown: () => move(-10),
    Home: home, a: () => turn("axial"), c: () => turn("coronal"), s: () => turn("sagittal"), p: () => turn("all"),
    e: () => { $("show").checked = !$("show").checked; cover(); }, 1: () => enlarge(names[0]), 2: () => enlarge(names[1]), 3: () => enlarge(names[2]), 4: () => enlarge(names[3]),
    Escape: () => { if (big) enlarge(big); },
  };
  document.addEventListener("keydown", event => {
    const free = document.activeElement === document.body || viewer.contains(document.activeElement);
    if (!free || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key] || (event.target.type === "range" && event.key !== "Escape")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    keys[event.key]();
  }, { capture: true });

  document.body.classList.add("live");
  turn("axial");
  views.forEach(nv => nv.resizeListener());
  show();
  viewer.dataset.ready = "yes";
})().catch(error => {
  document.body.classList.remove("live");
  const told = document.getElementById("no-viewer");
  told.hidden = false;
  told.append(` (${error.message})`);
});
