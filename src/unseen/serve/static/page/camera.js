// The camera.

import { count, make } from "/common.js";
import { $, complain } from "./elements.js";

const WIDTH = 1280;
const QUALITY = 0.92;

let busy = false;

// Whether there is one; none without HTTPS, but on this machine.
export async function findCamera() {
  const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
  $("camera-line").hidden = !devices.some((device) => device.kind === "videoinput");
}

export const hasCamera = () => !$("camera-line").hidden;

// Images from the camera: one, or as many as are taken until it is done; none if it is cancelled.
export async function takeImages(several) {
  if (busy) return []; // the browser is still asking
  busy = true;
  complain("");
  try {
    const stream = await openCamera();
    return stream ? await takeFrom(stream, several) : [];
  } finally {
    busy = false;
  }
}

async function openCamera() {
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: WIDTH }, facingMode: "environment" } });
  } catch (error) {
    complain(
      error.name === "NotAllowedError"
        ? "The browser denies access to the camera. Allow this page to use it."
        : "The camera does not start. Check that it is connected and that no other program uses it.",
    );
    return null;
  }
}

function takeFrom(stream, several) {
  const [box, video] = [$("camera"), $("video")];
  const taken = [];
  video.srcObject = stream;
  $("camera-done").hidden = !several;
  $("camera-said").textContent = "";
  box.returnValue = "";
  box.showModal();
  $("camera-take").onclick = async () => {
    if (!video.videoWidth) return;
    taken.push(await frameOf(video));
    $("camera-said").textContent = `${count(taken.length, "image")} taken.`;
    if (!several) box.close("done");
  };
  return new Promise((done) => {
    box.onclose = () => {
      for (const track of stream.getTracks()) track.stop();
      video.srcObject = null;
      done(box.returnValue === "done" ? taken : []);
    };
  });
}

async function frameOf(video) {
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
  const time = new Date().toISOString().replaceAll(/[:.]/g, "-");
  return new File([blob], `camera-${time}.jpg`, { type: "image/jpeg" });
}

$("camera-cancel").addEventListener("click", () => $("camera").close());
$("camera-done").addEventListener("click", () => $("camera").close("done"));
